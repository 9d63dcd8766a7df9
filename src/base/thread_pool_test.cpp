#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "base/right_of_way.h"

namespace chiasm {
namespace {

TEST(ThreadPool, EveryIndexOnceOnAThreadInRange) {
  RightOfWay way;
  for (const auto& [threads, before] :
       std::vector<std::pair<int, RightOfWay*>>{{1, nullptr}, {2, nullptr}, {5, nullptr}, {1, &way}, {3, &way}}) {
    ThreadPool pool(threads, before);
    ASSERT_EQ(pool.size(), threads);
    for (const std::int64_t count : {0, 1, 2, 3, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      std::atomic<bool> in_range{true};
      pool.parallel_for(count, [&](std::int64_t i, int thread) {
        seen[static_cast<std::size_t>(i)]++;
        if (thread < 0 || thread >= threads) in_range = false;
      });
      for (const auto& times : seen) EXPECT_EQ(times, 1);
      EXPECT_TRUE(in_range);
    }
  }
}

TEST(ThreadPool, APoolBehindOthersWorksOnThreadsOfALowerPriority) {
  RightOfWay way;
  ThreadPool pool(2, &way);
  const int own = ::getpriority(PRIO_PROCESS, 0);
  std::atomic<int> least{99};
  std::atomic<bool> caller{false};
  pool.parallel_for(1, [&, id = std::this_thread::get_id()](std::int64_t, int) {
    least = ::getpriority(PRIO_PROCESS, 0);
    caller = std::this_thread::get_id() == id;
  });
  EXPECT_FALSE(caller);
  EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), own);
  EXPECT_EQ(least, std::min(19, own + 5));
}

TEST(ThreadPool, APoolBehindOthersRunsNothingWhileTheWayIsTaken) {
  RightOfWay way;
  ThreadPool pool(2, &way);
  constexpr std::int64_t kTasks = 500;
  std::atomic<std::int64_t> done{0};
  std::atomic<int> inside{0};
  way.take();
  std::thread caller([&] {
    pool.parallel_for(kTasks, [&](std::int64_t, int) {
      ++inside;
      ++done;
      --inside;
    });
  });
  while (!way.wanted()) std::this_thread::yield();
  EXPECT_EQ(done, 0);
  way.leave();
  for (std::int64_t before = 0; before < kTasks; before = done) {  // in the middle of the loop, as often as that lasts
    const WayTaken taken(&way);
    const std::int64_t now = done;
    EXPECT_EQ(inside, 0);
    for (int i = 0; i < 10; ++i) std::this_thread::yield();
    EXPECT_EQ(done, now);
  }
  caller.join();
  EXPECT_EQ(done, kTasks);
  EXPECT_FALSE(way.wanted());
}

TEST(ThreadPool, NegativeCountDoesNothing) {
  ThreadPool pool(2);
  bool ran = false;
  pool.parallel_for(-3, [&](std::int64_t, int) { ran = true; });
  EXPECT_FALSE(ran);
}

TEST(ThreadPool, ZeroThreadsTakesTheMachine) { EXPECT_GE(ThreadPool().size(), 1); }

TEST(ThreadPool, ThreadIndexNamesOneThread) {
  ThreadPool pool(3);
  std::vector<std::thread::id> owner(3);
  std::atomic<bool> mixed{false};
  for (int loop = 0; loop < 20; ++loop)
    pool.parallel_for(64, [&](std::int64_t, int thread) {
      auto& id = owner[static_cast<std::size_t>(thread)];
      if (id == std::thread::id()) id = std::this_thread::get_id();
      if (id != std::this_thread::get_id()) mixed = true;
    });
  EXPECT_FALSE(mixed);
}

TEST(ThreadPool, ManyShortLoopsAndSeveralCallers) {
  ThreadPool pool(3);
  constexpr int kCallers = 4, kLoops = 300, kCount = 17;
  std::vector<std::int64_t> sums(kCallers);
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; ++c)
    callers.emplace_back([&, c] {
      for (int loop = 0; loop < kLoops; ++loop) {
        std::vector<std::int64_t> out(kCount);
        pool.parallel_for(kCount, [&](std::int64_t i, int) { out[static_cast<std::size_t>(i)] = i; });
        sums[static_cast<std::size_t>(c)] += std::accumulate(out.begin(), out.end(), std::int64_t{0});
      }
    });
  for (auto& caller : callers) caller.join();
  for (const std::int64_t sum : sums) EXPECT_EQ(sum, kLoops * kCount * (kCount - 1) / 2);
}

}  // namespace
}  // namespace chiasm
