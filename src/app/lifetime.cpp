#include "app/lifetime.h"

#include <csignal>
#include <cstdlib>

#include <pthread.h>

namespace chiasm {
namespace {

// SIGUSR1 is our own: it wakes the listener when there is nothing to listen for any more.
sigset_t signals() {
  sigset_t out;
  sigemptyset(&out);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&out, signal);
  return out;
}

}  // namespace

Lifetime::Lifetime() {
  const sigset_t set = signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  listener_ = std::thread([this] { listen(); });
}

Lifetime::~Lifetime() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  pthread_kill(listener_.native_handle(), SIGUSR1);
  listener_.join();
}

void Lifetime::listen() {
  const sigset_t set = signals();
  for (;;) {
    int signal = 0;
    if (sigwait(&set, &signal) != 0) continue;
    const std::lock_guard lock(mutex_);
    if (over_) return;
    if (signal == SIGUSR1) continue;
    if (!serving_) std::_Exit(EXIT_SUCCESS);
    if (ending_) std::_Exit(128 + signal);
    ending_ = true;
    changed_.notify_all();
  }
}

void Lifetime::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ending_; });
}

}  // namespace chiasm
