#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/resource.h>

namespace chiasm {
namespace {

// A third of a processor where another thread wants it too: who waits for this pool still comes to an end.
constexpr int kBehind = 5;

// Of the calling thread alone: on Linux a thread has a niceness of its own. Refused, it works as the others do.
void step_behind() {
  const int now = ::getpriority(PRIO_PROCESS, 0);
  static_cast<void>(::setpriority(PRIO_PROCESS, 0, std::min(19, now + kBehind)));
}

}  // namespace

struct ThreadPool::State {
  std::mutex loop;  // one loop at a time
  std::mutex mutex;
  std::condition_variable wake, done;
  const std::function<void(std::int64_t, int)>* task = nullptr;
  std::int64_t count = 0;
  std::atomic<std::int64_t> next{0};
  std::uint64_t generation = 0;
  int busy = 0;
  bool stop = false, behind = false;
  std::vector<std::thread> threads;

  void drain(int thread) {
    for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*task)(i, thread);
  }

  void run(int thread) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex);
    while (true) {
      wake.wait(lock, [&] { return stop || generation != seen; });
      if (stop) return;
      seen = generation;
      lock.unlock();
      drain(thread);
      lock.lock();
      if (--busy == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads, Rank rank) : state_(std::make_unique<State>()) {
  if (threads <= 0) threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  state_->behind = rank == Rank::kBehind;
  for (int i = state_->behind ? 0 : 1; i < threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), i] {
      if (state->behind) step_behind();
      state->run(i);
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (auto& thread : state_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + (state_->behind ? 0 : 1); }

void ThreadPool::parallel_for(std::int64_t count, const std::function<void(std::int64_t, int)>& task) {
  if (count <= 0) return;
  const std::lock_guard loop(state_->loop);
  if (!state_->behind && (count == 1 || state_->threads.empty())) {
    for (std::int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->task = &task;
    state_->count = count;
    state_->next = 0;
    state_->busy = static_cast<int>(state_->threads.size());
    ++state_->generation;
  }
  state_->wake.notify_all();
  if (!state_->behind) state_->drain(0);
  std::unique_lock lock(state_->mutex);
  state_->done.wait(lock, [&] { return state_->busy == 0; });
  state_->task = nullptr;
}

}  // namespace chiasm
