// A fixed set of threads for data-parallel loops.
//
// parallel_for hands out task indices; the caller's thread works too and returns when all tasks are done. Tasks only
// ever split the output, never a sum, so results do not depend on the number of threads. A pool that stands behind
// somebody leaves them the processors: its tasks wait while the way is taken, its threads have a lower priority, and
// its callers only wait.
// Thread contract: parallel_for may be called from any thread, one loop at a time (callers queue); a task must not
// start another loop on the same pool.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace chiasm {

class RightOfWay;

class ThreadPool {
 public:
  // `threads` that work at a time, the caller included; 0 takes what the machine has. With `way`, which must outlive
  // it, the pool stands behind whoever takes that, and the caller is not one of them.
  explicit ThreadPool(int threads = 0, RightOfWay* way = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Calls task(index, thread) for every index in [0, count); thread is in [0, size()).
  void parallel_for(std::int64_t count, const std::function<void(std::int64_t index, int thread)>& task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chiasm
