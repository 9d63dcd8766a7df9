// A bounded number of requests at once, each with a thread that may block: threads are made when they are needed and
// kept until the lane ends.
//
// Thread contract: every method from any thread, stop() from one.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/deadline.h"

namespace chiasm {

class Lane {
 public:
  explicit Lane(int permits) : permits_(permits) {}
  ~Lane() { stop(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  bool take();  // a permit; false at once when there is none
  void give();
  int taken() const;
  // True when no permit is taken any more.
  bool wait_idle(Deadline deadline);

  // For holders of a permit, one task each, so that the queue is bounded too. False: no thread can be had.
  bool run(std::function<void()> task);
  // Waits for the running tasks. Nothing runs afterwards.
  void stop();

 private:
  void work();

  const int permits_;
  mutable std::mutex mutex_;
  std::condition_variable idle_, wake_;
  int taken_ = 0;
  std::size_t waiting_ = 0;  // threads without a task
  bool stopping_ = false;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
};

}  // namespace chiasm
