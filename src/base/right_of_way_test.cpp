#include "base/right_of_way.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

// Waits for what another thread does sooner or later; a test that waits in vain ends by its time limit.
template <class Holds>
void await(const Holds& holds) {
  while (!holds()) std::this_thread::yield();
}

TEST(RightOfWay, WithNobodyBehindNothingWaits) {
  RightOfWay way;
  EXPECT_FALSE(way.wanted());
  way.pause(std::chrono::hours(24));
  for (int i = 0; i < 3; ++i) {
    way.take();
    way.leave();
  }
  way.pause(std::chrono::hours(24));
  const WayTaken taken(&way), nothing(nullptr);
}

TEST(RightOfWay, WithNobodyInFrontNobodyWaits) {
  RightOfWay way;
  way.enter();
  way.enter();
  EXPECT_TRUE(way.wanted());
  way.make_way();
  way.exit();
  EXPECT_TRUE(way.wanted());
  way.exit();
  EXPECT_FALSE(way.wanted());
}

TEST(RightOfWay, ThoseWhoComeWhileItIsTakenWait) {
  RightOfWay way;
  std::atomic<int> in = 0;
  way.take();
  std::vector<std::thread> behind;
  for (int i = 0; i < 3; ++i)
    behind.emplace_back([&] {
      way.enter();
      ++in;
      way.exit();
    });
  await([&] { return way.wanted(); });
  EXPECT_EQ(in, 0);
  way.leave();
  for (auto& thread : behind) thread.join();
  EXPECT_EQ(in, 3);
}

// Several behind with endless work, and one in front that comes and goes: never both at once, and both get on.
TEST(RightOfWay, TheyTakeTurns) {
  RightOfWay way;
  std::atomic<bool> front = false, over = false;
  std::atomic<int> inside = 0, together = 0;
  std::atomic<std::int64_t> tasks = 0;
  std::vector<std::thread> behind;
  for (int i = 0; i < 3; ++i)
    behind.emplace_back([&, i] {
      while (!over) {
        way.enter();
        for (int task = 0; task < 1 + 10 * i; ++task) {
          way.make_way();
          ++inside;
          if (front) ++together;
          ++tasks;
          --inside;
        }
        way.exit();
      }
    });
  for (int turn = 0; turn < 200; ++turn) {
    const std::int64_t before = tasks;
    await([&] { return tasks > before; });
    const WayTaken taken(&way);
    front = true;
    if (inside != 0) ++together;
    front = false;
  }
  way.pause(std::chrono::microseconds(1));
  over = true;
  for (auto& thread : behind) thread.join();
  EXPECT_EQ(together, 0);
  EXPECT_FALSE(way.wanted());
}

}  // namespace
}  // namespace chiasm
