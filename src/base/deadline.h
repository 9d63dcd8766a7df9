// When a piece of work stops being wanted: a point of the steady clock, and a flag that somebody may raise.
//
// Thread contract: values; a CancelFlag may be raised and read by any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

namespace chiasm {

using Deadline = std::chrono::steady_clock::time_point;
inline constexpr Deadline kNoDeadline = Deadline::max();

using CancelFlag = std::atomic<bool>;

// The earlier of `deadline` and `from_now` from now.
inline Deadline sooner(Deadline deadline, std::chrono::milliseconds from_now) {
  return std::min(deadline, std::chrono::steady_clock::now() + from_now);
}

}  // namespace chiasm
