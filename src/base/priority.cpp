#include "base/priority.h"

#include <thread>

#include <sys/resource.h>
#include <unistd.h>

namespace chiasm {
namespace {

constexpr int kNice = 10;  // a weight of 110 beside the usual 1024 in Linux's scheduler

}  // namespace

void lower_priority() {
#ifdef __linux__
  // Of Linux's threads each has a nice value of its own, and hands it to those it starts. Refused only where the value
  // is that or higher already.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
#endif
}

std::unique_ptr<ThreadPool> make_background_pool(int threads) {
  std::unique_ptr<ThreadPool> out;
  std::thread([&] {
    lower_priority();
    out = std::make_unique<ThreadPool>(threads);
  }).join();
  return out;
}

}  // namespace chiasm
