// Ctrl-C and requests to end, for commands that must clear something away first. A second signal ends at once.
//
// Thread contract: one at a time, the main thread.
#pragma once

#include <atomic>

namespace chiasm {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt();  // signals end the program again
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // True from the first signal on; any thread may look.
  static const std::atomic<bool>& requested();
  // 128 + the signal, as shells expect; for use once requested().
  static int exit_code();
};

}  // namespace chiasm
