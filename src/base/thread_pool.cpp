#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/resource.h>

#include "base/right_of_way.h"

namespace chiasm {
namespace {

// A decode step is hundreds of loops of some ten microseconds with as little between them: waking a thread for each
// would take as long as its work. So threads look for the next loop a while before they sleep, and callers for the end
// of theirs.
constexpr std::chrono::microseconds kHot(100);

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A quarter of a processor where another thread wants it too: who waits for this pool still comes to an end.
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
  const std::function<void(std::int64_t, int)>* task = nullptr;  // of the loop that runs; none between loops
  std::int64_t count = 0;
  std::atomic<std::int64_t> next{0};
  std::atomic<std::uint64_t> generation{0};
  std::atomic<int> busy{0};  // threads that take part, the caller aside; written under the mutex
  int asleep = 0;
  bool caller_asleep = false;
  std::atomic<bool> stop{false};
  RightOfWay* way = nullptr;  // of those before this pool; none: nobody is
  std::vector<std::thread> threads;

  void drain(int thread) {
    for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*task)(i, thread);
  }
  void drain_behind(int thread) {
    way->enter();
    for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      way->make_way();
      (*task)(i, thread);
    }
    way->exit();
  }
  bool over() const { return next.load() >= count && busy.load() == 0; }

  // Looks for `ready` a little while without sleeping. A pool that stands behind others has no processor to waste.
  template <class Ready>
  void watch(const Ready& ready) const {
    if (way != nullptr) return;
    const auto end = std::chrono::steady_clock::now() + kHot;
    while (!ready() && std::chrono::steady_clock::now() < end)
      for (int i = 0; i < 8 && !ready(); ++i) relax();
  }

  void run(int thread) {
    std::uint64_t seen = 0;
    while (true) {
      watch([&] { return stop.load() || generation.load() != seen; });
      std::unique_lock lock(mutex);
      ++asleep;
      wake.wait(lock, [&] { return stop || generation != seen; });
      --asleep;
      if (stop) return;
      seen = generation;
      if (task == nullptr) continue;  // the others were done before this one woke: they did not wait for it
      ++busy;
      lock.unlock();
      way == nullptr ? drain(thread) : drain_behind(thread);
      lock.lock();
      if (--busy == 0 && caller_asleep) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads, RightOfWay* way) : state_(std::make_unique<State>()) {
  if (threads <= 0) threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  state_->way = way;
  for (int i = way != nullptr ? 0 : 1; i < threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), i] {
      if (state->way != nullptr) step_behind();
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

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + (state_->way != nullptr ? 0 : 1); }

void ThreadPool::parallel_for(std::int64_t count, const std::function<void(std::int64_t, int)>& task) {
  if (count <= 0) return;
  const std::lock_guard loop(state_->loop);
  if (state_->way == nullptr && (count == 1 || state_->threads.empty())) {
    for (std::int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  bool sleepers = false;
  {
    const std::lock_guard lock(state_->mutex);
    state_->task = &task;
    state_->count = count;
    state_->next = 0;
    ++state_->generation;
    sleepers = state_->asleep > 0;
  }
  if (sleepers) state_->wake.notify_all();
  if (state_->way == nullptr) state_->drain(0);
  state_->watch([&] { return state_->over(); });
  std::unique_lock lock(state_->mutex);
  state_->caller_asleep = true;
  state_->done.wait(lock, [&] { return state_->over(); });
  state_->caller_asleep = false;
  state_->task = nullptr;
}

}  // namespace chiasm
