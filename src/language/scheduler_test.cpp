#include "language/scheduler.h"

#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<StepItem> plan(std::vector<std::int64_t> pending, std::int64_t budget) {
  return plan_step(pending, budget);
}

TEST(SchedulerTest, NothingToDo) { EXPECT_THAT(plan({}, 10), IsEmpty()); }

TEST(SchedulerTest, DecodingSequencesGoFirstAndPromptsFillTheRest) {
  EXPECT_THAT(plan({0, 7, 0, 9}, 12), ElementsAre(StepItem{0, 1}, StepItem{2, 1}, StepItem{1, 7}, StepItem{3, 3}));
}

TEST(SchedulerTest, DecodingIsNeverHeldBack) {
  EXPECT_THAT(plan({0, 0, 0, 5}, 2), ElementsAre(StepItem{0, 1}, StepItem{1, 1}, StepItem{2, 1}));
}

TEST(SchedulerTest, APromptAloneAlwaysMoves) { EXPECT_THAT(plan({5}, 0), ElementsAre(StepItem{0, 1})); }

// Whatever the mix: no sequence twice, no more tokens than it has, the budget kept but for decoding, and it ends.
TEST(SchedulerTest, EveryPromptFinishesWithinTheBudget) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 200; ++round) {
    std::vector<std::int64_t> pending(1 + random() % 8);
    for (auto& p : pending) p = random() % 40;
    const std::int64_t budget = 1 + random() % 16;
    for (int steps = 0; std::accumulate(pending.begin(), pending.end(), std::int64_t{0}) > 0; ++steps) {
      ASSERT_LT(steps, 400);
      std::vector<int> times(pending.size(), 0);
      std::int64_t prompts = 0;
      const auto decoding = std::count(pending.begin(), pending.end(), 0);
      for (const StepItem& item : plan_step(pending, budget)) {
        auto& left = pending[static_cast<std::size_t>(item.sequence)];
        ASSERT_EQ(++times[static_cast<std::size_t>(item.sequence)], 1);
        if (left == 0) {
          ASSERT_EQ(item.tokens, 1);
          continue;
        }
        ASSERT_LE(item.tokens, left);
        prompts += item.tokens;
        left -= item.tokens;
      }
      ASSERT_LE(prompts, std::max<std::int64_t>(0, budget - decoding));
      // Decoding sequences that fill the budget end some day; here they do at once.
      if (prompts == 0) break;
    }
  }
}

}  // namespace
}  // namespace chiasm
