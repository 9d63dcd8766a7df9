// Lets one side of a process go before another on the same processors, in turns: while the one in front computes, those
// behind wait between two tasks; in its pauses they have the processors to themselves.
//
// Priorities of the system do not do that: a step of many short parallel loops waits in each of them for a thread whose
// processor somebody else has, and each takes the other's caches. Tasks of those behind should take milliseconds: the
// one in front waits for them. Thread contract: take(), leave() and pause() one thread at a time, all else any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace chiasm {

class RightOfWay {
 public:
  // --- in front
  // Returns when nobody behind is in a task; none of them begins one until leave().
  void take();
  void leave();
  // Whether those behind have something to do now.
  bool wanted() const;
  // Sleeps for `time` where they have, so that the processors are theirs. Not while it is taken.
  void pause(std::chrono::nanoseconds time) const;

  // --- behind
  // Around tasks that follow each other; waits for the one in front.
  void enter();
  void exit();
  // Between two of them: waits likewise.
  void make_way() {
    if (!taken_.load(std::memory_order_relaxed)) return;
    exit();
    enter();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable free_, left_;
  std::atomic<bool> taken_ = false;  // written under the mutex
  int inside_ = 0, waiting_ = 0;
};

// Holds it for a scope; null: nothing to hold.
class WayTaken {
 public:
  explicit WayTaken(RightOfWay* way) : way_(way) {
    if (way_ != nullptr) way_->take();
  }
  ~WayTaken() {
    if (way_ != nullptr) way_->leave();
  }
  WayTaken(const WayTaken&) = delete;
  WayTaken& operator=(const WayTaken&) = delete;

 private:
  RightOfWay* const way_;
};

}  // namespace chiasm
