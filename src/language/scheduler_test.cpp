#include "language/scheduler.h"

#include <algorithm>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "language/prefix_cache.h"

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int64_t kPlenty = 1 << 20;

RunningNumbers decoding(std::int64_t tokens = 10) {
  return {.tokens = tokens, .computed = tokens - 1, .longest = 4096, .blocks = kv_blocks_for(tokens - 1)};
}
RunningNumbers prompt(std::int64_t pending, std::int64_t computed = 0) {
  return {.tokens = computed + pending, .computed = computed, .longest = 1 << 16, .blocks = kv_blocks_for(computed)};
}
// A sequence whose blocks are its own.
RunningNumbers alone(RunningNumbers one) {
  one.releases = one.blocks;
  return one;
}

std::vector<StepItem> items(const std::vector<RunningNumbers>& running, std::int64_t budget) {
  const StepPlan plan = plan_step(running, kPlenty, budget);
  EXPECT_THAT(plan.preempted, IsEmpty());
  return plan.items;
}

TEST(SchedulerTest, NothingToDo) { EXPECT_THAT(items({}, 10), IsEmpty()); }

TEST(SchedulerTest, DecodingSequencesGoFirstAndPromptsFillTheRest) {
  EXPECT_THAT(items({decoding(), prompt(7), decoding(), prompt(9)}, 12),
              ElementsAre(StepItem{0, 1}, StepItem{1, 7}, StepItem{2, 1}, StepItem{3, 3}));
}

TEST(SchedulerTest, DecodingIsNeverHeldBackAndAPromptAlwaysMoves) {
  EXPECT_THAT(items({decoding(), decoding(), decoding(), prompt(5)}, 2),
              ElementsAre(StepItem{0, 1}, StepItem{1, 1}, StepItem{2, 1}, StepItem{3, 1}));
  EXPECT_THAT(items({prompt(5)}, 0), ElementsAre(StepItem{0, 1}));
}

TEST(SchedulerTest, PromptsOfLikeLengthsGoFirstComeFirstServed) {
  EXPECT_THAT(items({prompt(1000), prompt(900), prompt(800)}, 512), ElementsAre(StepItem{0, 512}));
  EXPECT_THAT(items({prompt(100, 900), prompt(900)}, 512), ElementsAre(StepItem{0, 100}, StepItem{1, 412}));
}

TEST(SchedulerTest, ShortPromptsPassALongOneInHalfOfTheBudget) {
  EXPECT_THAT(items({prompt(10000), prompt(3000), prompt(100), prompt(60)}, 512),
              ElementsAre(StepItem{0, 352}, StepItem{2, 100}, StepItem{3, 60}));
  // More of them than fit: the shortest first, and the long one keeps its half.
  EXPECT_THAT(items({prompt(10000), prompt(240), prompt(200), prompt(30)}, 400),
              ElementsAre(StepItem{0, 200}, StepItem{2, 170}, StepItem{3, 30}));
}

// However many short prompts keep coming, the long one moves; however long it is, they do.
TEST(SchedulerTest, NobodyStarves) {
  std::vector<RunningNumbers> running{prompt(20000)};
  int steps = 0;
  for (; running.front().computed + 1 < running.front().tokens; ++steps) {
    ASSERT_LT(steps, 200);
    if (steps % 2 == 0) running.push_back(prompt(300));
    for (const StepItem& item : items(running, 512)) {
      auto& one = running[static_cast<std::size_t>(item.sequence)];
      one.computed += item.tokens;
      one.blocks = kv_blocks_for(one.computed);
      if (one.computed == one.tokens) ++one.tokens;
    }
    EXPECT_LE(
        std::count_if(running.begin() + 1, running.end(), [](auto& one) { return one.tokens - one.computed > 1; }), 3);
  }
  EXPECT_LT(steps, 2 * 20000 / 512 + 20);
}

TEST(SchedulerTest, TheLatestLeavesWhenDecodingNeedsABlock) {
  const RunningNumbers full = alone(decoding(65));  // 64 computed tokens fill its two blocks
  const StepPlan one = plan_step(std::vector{full, full, full}, 1, 64);
  EXPECT_THAT(one.preempted, ElementsAre(2));
  EXPECT_THAT(one.items, ElementsAre(StepItem{0, 1}, StepItem{1, 1}));
  // The latest is the one in need itself.
  const StepPlan itself = plan_step(std::vector{alone(decoding(20)), full}, 0, 64);
  EXPECT_THAT(itself.preempted, ElementsAre(1));
  EXPECT_THAT(itself.items, ElementsAre(StepItem{0, 1}));
  // Blocks that an older one has too are not gained.
  RunningNumbers sharing = full;
  sharing.releases = 0;
  EXPECT_THAT(plan_step(std::vector{full, full, sharing}, 0, 64).preempted, ElementsAre(2, 1));
}

TEST(SchedulerTest, APromptTakesWhatIsLeftBeforeAnybodyLeaves) {
  const StepPlan plan = plan_step(std::vector{alone(prompt(300, 10)), alone(decoding(20))}, 2, 512);
  EXPECT_THAT(plan.preempted, IsEmpty());
  EXPECT_THAT(plan.items, ElementsAre(StepItem{0, 86}, StepItem{1, 1}));
  // A later prompt waits where nothing is left; the oldest sends others away.
  const StepPlan waits = plan_step(std::vector{alone(decoding(20)), alone(prompt(300, 32))}, 0, 512);
  EXPECT_THAT(waits.preempted, IsEmpty());
  EXPECT_THAT(waits.items, ElementsAre(StepItem{0, 1}));
  const StepPlan oldest = plan_step(std::vector{alone(prompt(300, 32)), alone(decoding(20))}, 0, 512);
  EXPECT_THAT(oldest.preempted, ElementsAre(1));
  EXPECT_THAT(oldest.items, ElementsAre(StepItem{0, 32}));
}

TEST(SchedulerTest, OneJoinsWhereThereIsRoomForAll) {
  const WaitingNumbers waiting{.tokens = 100, .longest = 1000};  // 5 blocks: 132 tokens
  EXPECT_EQ(admit(waiting, {}, 0, 4), Admission::kJoins);
  const std::vector running{decoding(40)};  // 2 blocks, 3 for comfort
  EXPECT_EQ(admit(waiting, running, 5, 4), Admission::kWaitsForRoom);
  EXPECT_EQ(admit(waiting, running, 6, 4), Admission::kJoins);
  EXPECT_EQ(admit(waiting, running, 6, 1), Admission::kWaitsForRoom);
  EXPECT_EQ(admit({.tokens = 100, .longest = 101}, running, 5, 4), Admission::kJoins);  // never more than it can use
  EXPECT_EQ(admit({.tokens = 100, .longest = 1000, .blocks = 2}, running, 4, 4), Admission::kJoins);
  EXPECT_EQ(admit({.tokens = 100, .longest = 1000, .blocks = 2, .revived = 2}, running, 5, 4),
            Admission::kWaitsForRoom);
  EXPECT_EQ(admit({.tokens = 100, .longest = 1000, .prefix_under_way = true}, running, 60, 4),
            Admission::kWaitsForPrefix);
}

// A pool and sequences of their own blocks, arriving at random: the budget and the pool are kept, the oldest moves in
// every step, who has to leave is the latest, and all of them finish.
TEST(SchedulerTest, EverySequenceFinishesInAnyPool) {
  std::mt19937 random(7);
  std::int64_t preemptions = 0;
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(round);
    const std::int64_t pool = 6 + static_cast<std::int64_t>(random() % 20), budget = 1 + random() % 80;
    const std::int64_t max_sequences = 1 + random() % 6;
    std::vector<RunningNumbers> running, waiting;
    for (int i = 0; i < 8; ++i) {
      const std::int64_t tokens = 1 + static_cast<std::int64_t>(random() % 120);
      waiting.push_back(
          {.tokens = tokens, .longest = std::min<std::int64_t>(pool * kKvBlock, tokens + 1 + random() % 90)});
    }
    for (int step = 0; !running.empty() || !waiting.empty(); ++step) {
      ASSERT_LT(step, 20000);
      const auto used = [&] {
        return std::accumulate(running.begin(), running.end(), std::int64_t{0},
                               [](std::int64_t sum, const RunningNumbers& one) { return sum + one.blocks; });
      };
      while (!waiting.empty() && admit({.tokens = waiting.front().tokens, .longest = waiting.front().longest}, running,
                                       pool - used(), max_sequences) == Admission::kJoins) {
        running.push_back(waiting.front());
        waiting.erase(waiting.begin());
      }
      ASSERT_LE(static_cast<std::int64_t>(running.size()), max_sequences);
      for (RunningNumbers& one : running) one.releases = one.blocks;
      const auto decoders = std::count_if(running.begin(), running.end(),
                                          [](const RunningNumbers& one) { return one.tokens - one.computed == 1; });
      const StepPlan plan = plan_step(running, pool - used(), budget);
      ASSERT_FALSE(plan.items.empty());
      ASSERT_EQ(plan.items.front().sequence, 0);
      std::int64_t prompts = 0;
      for (const StepItem& item : plan.items) {
        RunningNumbers& one = running[static_cast<std::size_t>(item.sequence)];
        ASSERT_GE(item.tokens, 1);
        ASSERT_LE(item.tokens, one.tokens - one.computed);
        if (one.tokens - one.computed > 1) prompts += item.tokens;
        one.computed += item.tokens;
        one.blocks = std::max(one.blocks, kv_blocks_for(one.computed));
        if (one.computed == one.tokens) ++one.tokens;
      }
      ASSERT_LE(prompts, std::max<std::int64_t>(1, budget - decoders));
      for (const std::int64_t index : plan.preempted) {
        ASSERT_EQ(index, static_cast<std::int64_t>(running.size()) - 1);
        RunningNumbers back = running.back();
        running.pop_back();
        back.computed = back.blocks = 0;
        waiting.insert(waiting.begin(), back);
        ++preemptions;
      }
      ASSERT_LE(used(), pool);
      std::erase_if(running, [](const RunningNumbers& one) { return one.tokens >= one.longest; });
    }
  }
  EXPECT_GT(preemptions, 20);
}

}  // namespace
}  // namespace chiasm
