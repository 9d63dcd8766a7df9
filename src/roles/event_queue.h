// From the engine's thread to a handler's: events of several generations in the order they came.
//
// The engine never waits: the queue is as long as the answers that it is about, which max_tokens bounds.
// Thread contract: push from any thread, pop from one.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "base/deadline.h"

namespace chiasm {

template <class Event>
class EventQueue {
 public:
  struct Item {
    std::size_t from = 0;  // which generation
    Event event;
  };

  void push(std::size_t from, Event event) {
    {
      const std::lock_guard lock(mutex_);
      items_.push_back({from, std::move(event)});
    }
    came_.notify_one();
  }

  // Nothing: the time has come before an event did.
  std::optional<Item> pop(Deadline until) {
    std::unique_lock lock(mutex_);
    const auto there = [&] { return !items_.empty(); };
    if (until == kNoDeadline) {
      came_.wait(lock, there);
    } else if (!came_.wait_until(lock, until, there)) {
      return std::nullopt;
    }
    Item out = std::move(items_.front());
    items_.pop_front();
    return out;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<Item> items_;
};

}  // namespace chiasm
