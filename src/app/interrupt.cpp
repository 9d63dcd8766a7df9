#include "app/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace chiasm {
namespace {

// A signal handler reaches nothing else.
std::atomic<bool> stop_requested{false};
std::atomic<int> stopping_signal{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void on_signal(int signal) {
  stopping_signal = signal;
  stop_requested = true;
}

void handle(void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

}  // namespace

Interrupt::Interrupt() {
  stop_requested = false;
  handle(on_signal);
}

Interrupt::~Interrupt() { handle(SIG_DFL); }

const std::atomic<bool>& Interrupt::requested() { return stop_requested; }

int Interrupt::exit_code() { return 128 + stopping_signal; }

}  // namespace chiasm
