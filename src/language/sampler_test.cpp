#include "language/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using Logits = std::vector<float>;

std::int32_t draw(Logits logits, const SamplingParams& params, std::int64_t step, std::vector<std::int32_t> seen = {}) {
  return sample(logits, params, seen, step);
}

std::map<std::int32_t, double> frequencies(const Logits& logits, const SamplingParams& params, int draws) {
  std::map<std::int32_t, double> out;
  for (int step = 0; step < draws; ++step) out[draw(logits, params, step)] += 1.0 / draws;
  return out;
}

TEST(SamplerTest, GreedyTakesTheHighestAndTheLowerIdOfEquals) {
  EXPECT_EQ(draw({1, 5, 5, 2}, {}, 0), 1);
  EXPECT_EQ(draw({1, 5, 5, 2}, {.temperature = 0.7, .top_k = 1}, 3), 1);
}

TEST(SamplerTest, DrawsFollowTheSoftmax) {
  const Logits logits{0.0F, 1.0F, 2.0F, -1.0F};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    double total = 0;
    for (const float logit : logits) total += std::exp(logit / temperature);
    const auto seen = frequencies(logits, {.temperature = temperature, .seed = 11}, 20000);
    for (const auto& [id, share] : seen) {
      const double p = std::exp(logits[static_cast<std::size_t>(id)] / temperature) / total;
      EXPECT_NEAR(share, p, 6 * std::sqrt(p * (1 - p) / 20000)) << id << " at " << temperature;
    }
  }
}

TEST(SamplerTest, TopKAndTopPCutTheTail) {
  const Logits logits{3.0F, 2.0F, 1.0F, 0.0F};  // 0.644, 0.237, 0.087, 0.032
  for (const auto& [id, share] : frequencies(logits, {.temperature = 1, .top_k = 2}, 2000)) EXPECT_LT(id, 2);
  for (const auto& [id, share] : frequencies(logits, {.temperature = 1, .top_p = 0.8}, 2000)) EXPECT_LT(id, 2);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .top_p = 0.9}, 4000).size(), 3U);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .top_p = 1e-9}, 100).size(), 1U);
}

TEST(SamplerTest, TheSameSeedAndStepGiveTheSameToken) {
  const Logits logits(50, 0.0F);
  const SamplingParams one{.temperature = 1, .seed = 1}, two{.temperature = 1, .seed = 2};
  int different = 0;
  for (int step = 0; step < 50; ++step) {
    EXPECT_EQ(draw(logits, one, step), draw(logits, one, step));
    different += draw(logits, one, step) != draw(logits, two, step);
  }
  EXPECT_GT(different, 30);
}

TEST(SamplerTest, RepetitionPenaltyAsInTransformers) {
  // Positive logits are divided, negative ones multiplied, once a token however often it was seen.
  EXPECT_EQ(draw({2.0F, 1.9F, -1.0F}, {.repetition_penalty = 1.1}, 0, {0, 0, 0}), 1);
  EXPECT_EQ(draw({-1.0F, -1.05F}, {.repetition_penalty = 1.1}, 0, {0}), 1);
  EXPECT_EQ(draw({2.0F, 1.9F}, {.repetition_penalty = 1.0}, 0, {0}), 0);
}

TEST(SamplerTest, AnExtremePenaltyMakesNoInfinities) {
  for (const double penalty : {1e-300, 1e-30, 100.0})
    for (const SamplingParams& params : {SamplingParams{.repetition_penalty = penalty},
                                         SamplingParams{.temperature = 1, .repetition_penalty = penalty},
                                         SamplingParams{.temperature = 1e-300, .repetition_penalty = penalty}}) {
      Logits logits{3e38F, 2.0F, 1.0F, -1.0F, -3e38F};
      const std::vector<std::int32_t> seen{0, 1, 3, 4};
      const std::int32_t id = sample(logits, params, seen, 0);
      EXPECT_TRUE(all_finite(logits)) << penalty;
      EXPECT_LE(id, 1);
    }
}

TEST(SamplerTest, OnlyNumbersAreFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(all_finite(Logits{}));
  EXPECT_TRUE(all_finite(Logits{0.0F, -0.0F, 3.4e38F, -3.4e38F, 1e-45F}));
  for (const float bad : {kInf, -kInf, kNan, -kNan})
    for (std::size_t place = 0; place < 37; ++place) {
      Logits logits(37, 1.0F);
      logits[place] = bad;
      EXPECT_FALSE(all_finite(logits)) << place;
    }
}

TEST(SamplerTest, LogprobsAreOfTheRawLogits) {
  const Logits logits{1.0F, 3.0F, 2.0F};
  const Logprobs out = logprobs_of(logits, 2, 2);
  const double total = std::log(std::exp(1.0) + std::exp(3.0) + std::exp(2.0));
  EXPECT_EQ(out.chosen.id, 2);
  EXPECT_NEAR(out.chosen.logprob, 2.0 - total, 1e-6);
  ASSERT_EQ(out.top.size(), 2U);
  EXPECT_EQ(out.top[0].id, 1);
  EXPECT_NEAR(out.top[0].logprob, 3.0 - total, 1e-6);
  EXPECT_EQ(out.top[1].id, 2);
  EXPECT_TRUE(logprobs_of(logits, 0, 0).top.empty());
  EXPECT_EQ(logprobs_of(logits, 0, 99).top.size(), 3U);
}

TEST(SamplerTest, ParametersOutOfRangeAreNamed) {
  for (const auto& [params, field] : std::vector<std::pair<SamplingParams, std::string>>{
           {{.temperature = -1}, "temperature"},
           {{.temperature = std::numeric_limits<double>::quiet_NaN()}, "temperature"},
           {{.top_k = -1}, "top_k"},
           {{.top_p = 0}, "top_p"},
           {{.top_p = 1.5}, "top_p"},
           {{.repetition_penalty = 0}, "repetition_penalty"}}) {
    const Status status = check_sampling(params);
    ASSERT_FALSE(status.has_value()) << field;
    EXPECT_THAT(status.error().message, testing::HasSubstr(field));
  }
  EXPECT_TRUE(check_sampling({}).has_value());
}

TEST(SamplerTest, TheCheckpointsDefaults) {
  GenerationConfig config;
  config.temperature = 0.5;
  config.top_k = 7;
  config.repetition_penalty = 1.05;
  EXPECT_EQ(SamplingParams::from(config).temperature, 0);
  EXPECT_EQ(SamplingParams::from(config).repetition_penalty, 1.05);
  config.do_sample = true;
  EXPECT_EQ(SamplingParams::from(config).temperature, 0.5);
  EXPECT_EQ(SamplingParams::from(config).top_k, 7);
}

}  // namespace
}  // namespace chiasm
