#include "language/pace.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

// Steps of a machine that needs `base` ms to decode and `per_token` for each token of a prompt beside it.
double longest_addition(Pace& pace, double base, double per_token, int steps) {
  double longest = 0;
  for (int i = 0; i < steps; ++i) {
    const std::int64_t tokens = std::min<std::int64_t>(pace.prefill_tokens(), 512);
    const double addition = per_token * static_cast<double>(tokens);
    pace.took(tokens, 1, base + addition);
    longest = std::max(longest, addition);
  }
  return longest;
}

TEST(PaceTest, PromptsAddWhatIsAllowed) {
  for (const double per_token : {0.01, 0.7, 15.0, 60.0}) {
    Pace pace(100);
    pace.took(400, 0, 400 * per_token);  // the stream's own prompt
    pace.took(0, 1, 90);
    EXPECT_LE(longest_addition(pace, 90, per_token, 50), 101) << per_token;
    EXPECT_GE(std::min<std::int64_t>(pace.prefill_tokens(), 512) * per_token,
              std::min(512 * per_token, 100 - per_token))
        << "what is allowed is used, " << per_token;
  }
}

TEST(PaceTest, FewTokensAtATimeAreDearerThanMany) {
  Pace pace(100);
  pace.took(512, 0, 512);  // 1 ms each
  pace.took(0, 1, 50);
  EXPECT_EQ(pace.prefill_tokens(), 100);
  pace.took(100, 1, 350);  // 3 ms each beside decoding
  EXPECT_EQ(pace.prefill_tokens(), 33);
  pace.took(512, 0, 512);  // says nothing about that
  EXPECT_EQ(pace.prefill_tokens(), 33);
  EXPECT_LE(longest_addition(pace, 50, 3, 20), 102);
}

TEST(PaceTest, OneStepOfNoiseChangesLittle) {
  Pace pace(100);
  pace.took(200, 0, 200 * 8);
  pace.took(0, 1, 100);
  longest_addition(pace, 100, 10, 20);
  EXPECT_EQ(pace.prefill_tokens(), 10);
  pace.took(10, 1, 100);  // as if they had been free
  EXPECT_LE(pace.prefill_tokens(), 12);
  pace.took(10, 1, 5000);  // somebody else had the machine
  EXPECT_GE(pace.prefill_tokens(), 4);
  EXPECT_LE(longest_addition(pace, 100, 10, 20), 150);
  EXPECT_GE(pace.prefill_tokens(), 9);
}

TEST(PaceTest, ManyMoreThatDecodeDoNotStopAPrompt) {
  Pace pace(100);
  pace.took(200, 0, 200 * 8);
  pace.took(0, 1, 100);
  longest_addition(pace, 900, 8, 50);  // what it knows of decoding is of another time
  EXPECT_GE(pace.prefill_tokens(), 3);
}

TEST(PaceTest, WhileDecodingIsUnknownAPromptAloneIsTheMeasure) {
  Pace pace(100);
  EXPECT_GE(pace.prefill_tokens(), 1);
  pace.took(5, 0, 500);  // the weights' reading, over a few
  const std::int64_t before = pace.prefill_tokens();
  pace.took(5, 1, 600);
  EXPECT_EQ(pace.prefill_tokens(), before);
  pace.took(100, 0, 400);
  EXPECT_EQ(pace.prefill_tokens(), 25);
}

TEST(PaceTest, APromptAlwaysMoves) {
  Pace pace(0.001);
  EXPECT_GE(pace.prefill_tokens(), 1);
  pace.took(0, 1, 1);
  pace.took(1, 1, 1e6);
  EXPECT_EQ(pace.prefill_tokens(), 1);
}

TEST(PaceTest, WithoutALimitThereIsNone) {
  Pace pace(0);
  pace.took(100, 0, 1e6);
  EXPECT_EQ(pace.prefill_tokens(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(pace.prefill_tokens(true), std::numeric_limits<std::int64_t>::max());
  pace.took(0, 1, 400);
  EXPECT_EQ(pace.pause_ms(), 200);
  EXPECT_EQ(pace.pause_ms(true), 200);
}

TEST(PaceTest, OthersHaveHalfAStepWithinTheStall) {
  Pace pace(90);
  EXPECT_EQ(pace.pause_ms(), 1) << "nothing is known yet, and they move";
  pace.took(500, 0, 5000);  // nobody's stream
  EXPECT_EQ(pace.pause_ms(), 1);
  pace.took(0, 1, 0.2);
  EXPECT_EQ(pace.pause_ms(), 1);
  Pace slower(90);
  slower.took(0, 1, 60);
  EXPECT_EQ(slower.pause_ms(), 30);
  EXPECT_EQ(slower.pause_ms(true), 30);
  for (int i = 0; i < 20; ++i) slower.took(0, 1, 1000);
  EXPECT_EQ(slower.pause_ms(), 90);
  EXPECT_NEAR(slower.pause_ms(true), 30, 1e-9);
}

TEST(PaceTest, PromptsAndOthersShareTheStall) {
  for (const double per_token : {0.01, 0.7, 10.0}) {
    Pace pace(90);
    pace.took(400, 0, 400 * per_token);
    pace.took(0, 1, 300);
    for (int i = 0; i < 20; ++i) {
      const std::int64_t tokens = pace.prefill_tokens(true);
      const double addition = per_token * static_cast<double>(tokens);
      EXPECT_LE(addition + pace.pause_ms(true), 90 + 1e-6) << per_token;
      EXPECT_GE(addition, 60 - per_token) << "what is allowed is used, " << per_token;
      pace.took(tokens, 1, 300 + addition);
    }
  }
}

}  // namespace
}  // namespace chiasm
