// A server's end: the first signal asks for it, the second does not wait.
//
// Thread contract: one, made before any other thread is: those inherit its signal mask.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace chiasm {

class Lifetime {
 public:
  // SIGINT, SIGTERM and SIGHUP come here from now on. Until serving() the first ends the program, with exit code 0.
  Lifetime();
  ~Lifetime();
  Lifetime(const Lifetime&) = delete;
  Lifetime& operator=(const Lifetime&) = delete;

  // From now on there is something to finish first.
  void serving() { serving_ = true; }
  // Returns at the first signal.
  void wait();

 private:
  void listen();

  std::atomic<bool> serving_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false, over_ = false;
  std::thread listener_;
};

}  // namespace chiasm
