#include "language/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

namespace chiasm {
namespace {

// A uniform number in [0, 1) from (seed, step): splitmix64, Steele et al. 2014.
double uniform(std::uint64_t seed, std::uint64_t step) {
  std::uint64_t x = seed + (step + 1) * 0x9E3779B97F4A7C15ULL;
  for (int round = 0; round < 2; ++round) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    x ^= x >> 31;
    x += 0x9E3779B97F4A7C15ULL;
  }
  return static_cast<double>(x >> 11) * 0x1.0p-53;
}

std::int32_t argmax(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void penalize(std::span<float> logits, double penalty, std::span<const std::int32_t> seen) {
  std::vector<std::int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto factor = static_cast<float>(penalty);
  constexpr float kMost = std::numeric_limits<float>::max();
  for (const std::int32_t id : ids) {
    float& logit = logits[static_cast<std::size_t>(id)];
    // An extreme factor must not make an infinity: two of them have no difference.
    logit = std::clamp(logit > 0 ? logit / factor : logit * factor, -kMost, kMost);
  }
}

}  // namespace

SamplingParams SamplingParams::from(const GenerationConfig& config) {
  SamplingParams out;
  out.repetition_penalty = config.repetition_penalty;
  if (!config.do_sample) return out;
  out.temperature = config.temperature;
  out.top_k = config.top_k;
  out.top_p = config.top_p;
  return out;
}

Status check_sampling(const SamplingParams& params) {
  if (!(params.temperature >= 0 && params.temperature <= 100))
    return fail(Code::kInvalidArgument, "temperature: expected a number from 0 to 100, got {}", params.temperature);
  if (params.top_k < 0) return fail(Code::kInvalidArgument, "top_k: expected 0 (all) or more, got {}", params.top_k);
  if (!(params.top_p > 0 && params.top_p <= 1))
    return fail(Code::kInvalidArgument, "top_p: expected a number above 0 and at most 1, got {}", params.top_p);
  if (!(params.repetition_penalty > 0 && params.repetition_penalty <= 100))
    return fail(Code::kInvalidArgument, "repetition_penalty: expected a number above 0 and at most 100, got {}",
                params.repetition_penalty);
  return {};
}

bool all_finite(std::span<const float> logits) {
  constexpr std::uint32_t kExponent = 0x7F800000;  // all ones in NaN and infinity only
  bool bad = false;
  for (const float logit : logits) bad |= (std::bit_cast<std::uint32_t>(logit) & kExponent) == kExponent;
  return !bad;
}

std::int32_t sample(std::span<float> logits, const SamplingParams& params, std::span<const std::int32_t> seen,
                    std::int64_t step) {
  if (params.repetition_penalty != 1.0) penalize(logits, params.repetition_penalty, seen);
  if (params.temperature == 0 || params.top_k == 1) return argmax(logits);

  // Candidates by falling logit; ties by id, so that the order is defined.
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto above = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (params.top_k > 0 && params.top_k < static_cast<std::int64_t>(ids.size())) {
    std::partial_sort(ids.begin(), ids.begin() + params.top_k, ids.end(), above);
    ids.resize(static_cast<std::size_t>(params.top_k));
  } else {
    std::sort(ids.begin(), ids.end(), above);
  }
  const double highest = logits[static_cast<std::size_t>(ids.front())];
  std::vector<double> weights;
  weights.reserve(ids.size());
  for (const std::int32_t id : ids)
    weights.push_back(std::exp((logits[static_cast<std::size_t>(id)] - highest) / params.temperature));
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (params.top_p < 1) {
    // The shortest head whose probability reaches top_p.
    double head = 0;
    std::size_t count = 0;
    while (count < weights.size() && head < params.top_p * total) head += weights[count++];
    weights.resize(std::max<std::size_t>(count, 1));
    total = std::accumulate(weights.begin(), weights.end(), 0.0);
  }
  double draw = uniform(params.seed, static_cast<std::uint64_t>(step)) * total;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    draw -= weights[i];
    if (draw < 0) return ids[i];
  }
  return ids[weights.size() - 1];
}

Logprobs logprobs_of(std::span<const float> logits, std::int32_t chosen, std::int64_t count) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  const double log_sum = highest + std::log(sum);
  Logprobs out;
  out.chosen = {chosen, logits[static_cast<std::size_t>(chosen)] - log_sum};
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto wanted =
      static_cast<std::ptrdiff_t>(std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(ids.size())));
  std::partial_sort(ids.begin(), ids.begin() + wanted, ids.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (std::ptrdiff_t i = 0; i < wanted; ++i)
    out.top.push_back({ids[static_cast<std::size_t>(i)], logits[static_cast<std::size_t>(ids[i])] - log_sum});
  return out;
}

}  // namespace chiasm
