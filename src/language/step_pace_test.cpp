#include "language/step_pace.h"

#include <gtest/gtest.h>

namespace chiasm {
namespace {

TEST(StepPace, NothingIsKnownOrAsked) {
  EXPECT_EQ(StepPace(100).prompt_tokens(512), 512);
  StepPace free(0);
  free.record(100, 0, 1e6);
  EXPECT_EQ(free.prompt_tokens(512), 512);
}

TEST(StepPace, WhatAPromptTookAlone) {
  StepPace pace(100);
  pace.record(272, 0, 2720);  // 10 ms a token
  EXPECT_EQ(pace.prompt_tokens(512), 10);
  EXPECT_EQ(pace.prompt_tokens(7), 7);
}

TEST(StepPace, FastModelsAreNotHeldBack) {
  StepPace pace(100);
  pace.record(512, 0, 10);
  EXPECT_EQ(pace.prompt_tokens(512), 512);
}

TEST(StepPace, PromptsAlwaysMove) {
  StepPace pace(100);
  pace.record(1, 0, 5000);
  EXPECT_EQ(pace.prompt_tokens(512), StepPace::kFewest);
  EXPECT_EQ(pace.prompt_tokens(2), 2);
}

// Beside a decoding step, a token costs what it adds.
TEST(StepPace, LearnsWhatATokenAdds) {
  StepPace pace(100);
  pace.record(100, 0, 2000);  // 20 ms each
  EXPECT_EQ(pace.prompt_tokens(512), 5);
  pace.record(0, 1, 150);
  for (int i = 0; i < 20; ++i) pace.record(5, 1, 150 + 5 * 4);  // 4 ms each
  EXPECT_NEAR(static_cast<double>(pace.prompt_tokens(512)), 25, 1);
}

TEST(StepPace, OneDisturbedStepDoesNotDecide) {
  StepPace pace(100);
  pace.record(0, 1, 100);
  for (int i = 0; i < 20; ++i) pace.record(10, 1, 150);  // 5 ms each
  pace.record(10, 1, 100 + 10 * 25);
  EXPECT_EQ(pace.prompt_tokens(512), 10);
  pace.record(10, 1, 90);  // faster than a decoding step alone: it costs nothing, not less
  EXPECT_GT(pace.prompt_tokens(512), 10);
}

}  // namespace
}  // namespace chiasm
