#include "language/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <random>

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
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .top_p = 0}, 100).size(), 1U);
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
           {{.top_p = -0.1}, "top_p"},
           {{.top_p = 1.5}, "top_p"},
           {{.repetition_penalty = 0}, "repetition_penalty"},
           {{.min_p = -0.1}, "min_p"},
           {{.min_p = 1.1}, "min_p"},
           {{.frequency_penalty = 2.1}, "frequency_penalty"},
           {{.presence_penalty = -2.1}, "presence_penalty"},
           {{.presence_penalty = std::numeric_limits<double>::quiet_NaN()}, "presence_penalty"},
           {{.logit_bias = {{-1, 1.0}}}, "logit_bias"},
           {{.logit_bias = {{1, 101.0}}}, "logit_bias"}}) {
    const Status status = check_sampling(params);
    ASSERT_FALSE(status.has_value()) << field;
    EXPECT_THAT(status.error().message, testing::HasSubstr(field));
  }
  EXPECT_TRUE(check_sampling({}).has_value());
}

std::optional<std::int32_t> ruled(Logits logits, const SamplingParams& params, const TokenRules& rules,
                                  std::int64_t step = 0) {
  return sample(logits, params, rules.generated, step, rules);
}

TEST(SamplerTest, MinPIsAShareOfTheMostLikely) {
  const Logits logits{3.0F, 2.0F, 1.0F, 0.0F};  // ratios 1, 0.368, 0.135, 0.050
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 0.2}, 2000).size(), 2U);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 0.1}, 4000).size(), 3U);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 1}, 500).size(), 1U);
  // After the temperature: ratios 1, 0.607, 0.368, 0.223.
  EXPECT_EQ(frequencies(logits, {.temperature = 2, .min_p = 0.2}, 4000).size(), 4U);
  // Before top-p, which is of what is left: 0.731 and 0.269.
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .top_p = 0.7, .min_p = 0.2}, 500).size(), 1U);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .top_p = 0.7}, 2000).size(), 2U);
}

// OpenAI's formula: logit - count * frequency_penalty - (count > 0) * presence_penalty.
TEST(SamplerTest, FrequencyAndPresencePenaltiesCountWhatWasGenerated) {
  const std::vector<std::int32_t> generated{0, 0, 0, 1};
  Logits logits{5, 5, 5, 5};
  sample(logits, {.frequency_penalty = 0.5, .presence_penalty = 0.25}, generated, 4, {.generated = generated});
  EXPECT_THAT(logits, testing::ElementsAre(3.25F, 4.25F, 5.0F, 5.0F));
  // The prompt does not count, as it does for the repetition penalty.
  Logits same{5, 5};
  sample(same, {.presence_penalty = 2}, generated, 0, {});
  EXPECT_THAT(same, testing::ElementsAre(5.0F, 5.0F));
  Logits raised{1, 2};
  EXPECT_EQ(*sample(raised, {.frequency_penalty = -1}, generated, 4, {.generated = generated}), 0);
}

TEST(SamplerTest, BiasIsAddedBeforePenalties) {
  EXPECT_EQ(ruled({1, 2, 3}, {.logit_bias = {{0, 5.0}, {2, -5.0}}}, {}), 0);
  Logits logits{1, -1};
  const std::vector<std::int32_t> seen{0, 1};
  sample(logits, {.repetition_penalty = 2, .logit_bias = {{0, 3.0}, {1, 3.0}}}, seen, 0, {});
  EXPECT_THAT(logits, testing::ElementsAre(2.0F, 1.0F));
  Logits extreme{3.4e38F, -3.4e38F};
  sample(extreme, {.frequency_penalty = -2, .logit_bias = {{0, 100.0}, {1, -100.0}}}, seen, 0, {.generated = seen});
  EXPECT_TRUE(all_finite(extreme));
}

TEST(SamplerTest, OnlyAllowedTokensComeAndNoForbiddenOnes) {
  TokenMask allowed(70);
  for (const std::int32_t id : {3, 66, 69}) allowed.set(id);
  Logits logits(70, 0.0F);
  logits[10] = 50;
  logits[66] = 1;
  EXPECT_EQ(ruled(logits, {}, {.allowed = &allowed}), 66);
  const std::vector<std::int64_t> forbidden{66, -5, 1000};
  EXPECT_EQ(ruled(logits, {}, {.allowed = &allowed, .forbidden = forbidden}), 3);
  // Neither a bias nor a penalty brings them back.
  EXPECT_EQ(ruled(logits, {.logit_bias = {{10, 100.0}}}, {.allowed = &allowed}), 66);
  std::map<std::int32_t, int> counts;
  for (int step = 0; step < 500; ++step)
    ++counts[*ruled(logits, {.temperature = 5, .min_p = 0.01}, {.allowed = &allowed, .forbidden = forbidden}, step)];
  EXPECT_EQ(counts.size(), 2U);
  EXPECT_EQ(counts.count(66), 0U);
  const std::vector<std::int64_t> all{3, 66, 69};
  EXPECT_EQ(ruled(logits, {}, {.allowed = &allowed, .forbidden = all}), std::nullopt);
  EXPECT_EQ(ruled(logits, {.temperature = 1}, {.allowed = &allowed, .forbidden = all}), std::nullopt);
}

// The plain way: sort everything, then cut and draw.
std::int32_t sorted_draw(const Logits& logits, const SamplingParams& params, double uniform) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
  std::stable_sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  if (params.top_k > 0) ids.resize(std::min<std::size_t>(ids.size(), static_cast<std::size_t>(params.top_k)));
  std::vector<double> weights;
  for (const std::int32_t id : ids) weights.push_back(std::exp((logit(id) - logit(ids[0])) / params.temperature));
  double total = std::accumulate(weights.begin(), weights.end(), 0.0), head = 0;
  std::size_t count = 0;
  while (count < weights.size() && head < params.top_p * total) head += weights[count++];
  weights.resize(std::max<std::size_t>(count, 1));
  total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double left = uniform * total;
  for (std::size_t i = 0; i < weights.size(); ++i)
    if ((left -= weights[i]) < 0) return ids[i];
  return ids[weights.size() - 1];
}

TEST(SamplerTest, PartialSelectionDrawsWhatAFullSortDoes) {
  // What sample() draws at (seed 0, step) when every token is as likely tells its uniform number.
  std::mt19937 random(2);
  std::normal_distribution<float> value(0, 3);
  for (int round = 0; round < 300; ++round) {
    Logits logits(1 + random() % 3000);
    for (float& logit : logits) logit = std::round(value(random) * 8) / 8;  // with ties
    const SamplingParams params{.temperature = 0.3 + 0.01 * static_cast<double>(random() % 300),
                                .top_k = round % 3 == 0 ? static_cast<std::int64_t>(random() % 200) : 0,
                                .top_p = round % 2 == 0 ? 0.01 * static_cast<double>(1 + random() % 99) : 1.0};
    if (params.top_k == 1) continue;
    const Logits flat(1 << 18, 0.0F);
    const double uniform =
        round < 10 ? (draw(flat, {.temperature = 1}, round) + 0.5) / (1 << 18) : -1;  // slow: a few are enough
    if (uniform >= 0) {
      EXPECT_EQ(draw(logits, params, round), sorted_draw(logits, params, uniform)) << round;
      continue;
    }
    const std::int32_t id = draw(logits, params, round);
    // Of the tokens that the cuts leave.
    EXPECT_GE(logits[static_cast<std::size_t>(id)],
              logits[static_cast<std::size_t>(sorted_draw(logits, params, 1 - 1e-9))]);
  }
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
