#include "base/right_of_way.h"

#include <thread>

#include "base/check.h"

namespace chiasm {

void RightOfWay::take() {
  std::unique_lock lock(mutex_);
  CHECK(!taken_);
  taken_ = true;
  free_.wait(lock, [&] { return inside_ == 0; });
}

void RightOfWay::leave() {
  {
    const std::lock_guard lock(mutex_);
    taken_ = false;
  }
  left_.notify_all();
}

bool RightOfWay::wanted() const {
  const std::lock_guard lock(mutex_);
  return inside_ + waiting_ > 0;
}

void RightOfWay::pause(std::chrono::nanoseconds time) const {
  if (wanted()) std::this_thread::sleep_for(time);
}

void RightOfWay::enter() {
  std::unique_lock lock(mutex_);
  ++waiting_;
  left_.wait(lock, [&] { return !taken_; });
  --waiting_;
  ++inside_;
}

void RightOfWay::exit() {
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    last = --inside_ == 0 && taken_;
  }
  if (last) free_.notify_one();
}

}  // namespace chiasm
