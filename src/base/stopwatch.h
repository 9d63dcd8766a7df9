// Milliseconds since construction or the last lap.
#pragma once

#include <chrono>

namespace chiasm {

class Stopwatch {
 public:
  double ms() const { return std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }
  // ms(), and starts again.
  double lap() {
    const double out = ms();
    start_ = Clock::now();
    return out;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace chiasm
