#include "base/priority.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

namespace chiasm {
namespace {

int own_nice() { return ::getpriority(PRIO_PROCESS, static_cast<id_t>(::gettid())); }

TEST(Priority, OfOneThreadOnly) {
#ifdef __linux__
  const int before = own_nice();
  int inside = 0, child = 0;
  std::thread([&] {
    lower_priority();
    inside = own_nice();
    std::thread([&] { child = own_nice(); }).join();
  }).join();
  EXPECT_EQ(own_nice(), before);
  EXPECT_GE(inside, 10);
  EXPECT_EQ(child, inside);
#endif
}

TEST(Priority, ABackgroundPoolComputes) {
  const auto pool = make_background_pool(3);
  EXPECT_EQ(pool->size(), 3);
  std::atomic<int> sum = 0;
  pool->parallel_for(100, [&](std::int64_t i, int) { sum += static_cast<int>(i); });
  EXPECT_EQ(sum, 4950);
}

}  // namespace
}  // namespace chiasm
