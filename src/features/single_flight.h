// One computation per key at a time: the first caller works, the others wait for what it finds.
//
// Nothing is remembered once the work is done; keeping results is the caller's. Thread contract: run() may be called
// from any thread, but not from inside `work` or `after` with the same key.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/deadline.h"
#include "base/result.h"

namespace chiasm {

template <class Key, class Value>
class SingleFlight {
 public:
  struct Landed {
    Result<Value> result;
    bool joined = false;  // the result is another caller's
  };

  // Calls `work` unless another caller is at it, and then waits for that one until `deadline` or `cancel`. The answer
  // goes to those who wait before `after` runs, and until `after` is done newcomers still get it: there is no gap in
  // which a result is found neither here nor where `after` puts it. An error that concerns only the caller who worked
  // (kCancelled, kDeadlineExceeded) is not passed on: one of those who wait works instead. Exceptions become kInternal.
  Landed run(const Key& key, const std::function<Result<Value>()>& work, const std::function<void(const Value&)>& after,
             Deadline deadline, const CancelFlag* cancel = nullptr) {
    for (;;) {
      bool leads = false;
      const std::shared_ptr<Flight> flight = board(key, leads);
      if (leads) return {lead(key, *flight, work, after), false};
      if (auto result = wait(*flight, deadline, cancel)) return {std::move(*result), true};
    }
  }

  // How many callers wait for another's work now.
  int waiting() const { return waiting_; }

 private:
  struct Count {
    explicit Count(std::atomic<int>& counter_in) : counter(counter_in) { ++counter; }
    ~Count() { --counter; }
    std::atomic<int>& counter;
  };
  struct Flight {
    std::mutex mutex;
    std::condition_variable landed;
    std::optional<Result<Value>> result;
  };

  static bool is_own(const Error& error) {
    return error.code == Code::kCancelled || error.code == Code::kDeadlineExceeded;
  }

  std::shared_ptr<Flight> board(const Key& key, bool& leads) {
    const std::lock_guard lock(mutex_);
    auto& flight = flights_[key];
    leads = flight == nullptr;
    if (leads) flight = std::make_shared<Flight>();
    return flight;
  }

  void remove(const Key& key) {
    const std::lock_guard lock(mutex_);
    flights_.erase(key);
  }

  Result<Value> lead(const Key& key, Flight& flight, const std::function<Result<Value>()>& work,
                     const std::function<void(const Value&)>& after) {
    Result<Value> result = guarded(work);
    // Gone from the table before those who wait wake up: one that tries again must not board this flight.
    if (!result) remove(key);
    {
      const std::lock_guard lock(flight.mutex);
      flight.result = result;
    }
    flight.landed.notify_all();
    if (!result) return result;
    guarded([&]() -> Result<Value> {
      if (after) after(*result);
      return result;
    });
    remove(key);
    return result;
  }

  // Nothing: the flight ended in an error of its leader's own, and there is time left to try again.
  std::optional<Result<Value>> wait(Flight& flight, Deadline deadline, const CancelFlag* cancel) {
    std::unique_lock lock(flight.mutex);
    const auto landed = [&] { return flight.result.has_value(); };
    const Count count(waiting_);
    if (cancel == nullptr && deadline == kNoDeadline) flight.landed.wait(lock, landed);
    // A flag wakes nobody: it is looked at every now and then.
    while (!flight.result) {
      if (cancel != nullptr && *cancel)
        return Result<Value>(fail(Code::kCancelled, "cancelled while another request did the work"));
      if (std::chrono::steady_clock::now() >= deadline)
        return Result<Value>(fail(Code::kDeadlineExceeded, "the deadline passed while another request did the work"));
      const Deadline glance = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
      flight.landed.wait_until(lock, cancel == nullptr ? deadline : std::min(deadline, glance), landed);
    }
    if (!*flight.result && is_own(flight.result->error())) return std::nullopt;
    return flight.result;
  }

  template <class Work>
  static Result<Value> guarded(const Work& work) {
    try {
      return work();
    } catch (const std::exception& e) {
      return fail(Code::kInternal, "unexpected failure: {}", e.what());
    } catch (...) {
      return fail(Code::kInternal, "unexpected failure of unknown kind");
    }
  }

  std::atomic<int> waiting_ = 0;
  std::mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<Flight>> flights_;
};

}  // namespace chiasm
