#include "http/lane.h"

#include <system_error>
#include <utility>

namespace chiasm {

bool Lane::take() {
  const std::lock_guard lock(mutex_);
  if (taken_ >= permits_) return false;
  ++taken_;
  return true;
}

void Lane::give() {
  const std::lock_guard lock(mutex_);
  if (--taken_ == 0) idle_.notify_all();
}

int Lane::taken() const {
  const std::lock_guard lock(mutex_);
  return taken_;
}

bool Lane::wait_idle(Deadline deadline) {
  std::unique_lock lock(mutex_);
  const auto idle = [&] { return taken_ == 0; };
  if (deadline != kNoDeadline) return idle_.wait_until(lock, deadline, idle);
  idle_.wait(lock, idle);
  return true;
}

bool Lane::run(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return false;
  // A thread whose permit was given back may still be on its way to wait: at the bound, the task is left to it.
  if (waiting_ <= tasks_.size() && threads_.size() < static_cast<std::size_t>(permits_)) {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads_.empty()) return false;  // otherwise one of the others takes it when it is free
    }
  }
  tasks_.push_back(std::move(task));
  wake_.notify_one();
  return true;
}

void Lane::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++waiting_;
    wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    --waiting_;
    if (tasks_.empty()) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes before the lock is taken again
    lock.lock();
  }
}

void Lane::stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace chiasm
