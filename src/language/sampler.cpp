#include "language/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

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

constexpr float kMost = std::numeric_limits<float>::max();
constexpr float kNever = -std::numeric_limits<float>::infinity();  // the logit of a token that may not come

// Extreme parameters must not make an infinity: two of them have no difference. What may not come stays so.
void set_logit(float& logit, double value) {
  if (logit != kNever) logit = static_cast<float>(std::clamp<double>(value, -kMost, kMost));
}

void mask(std::span<float> logits, const TokenRules& rules) {
  if (rules.allowed != nullptr)
    for (std::size_t id = 0; id < logits.size(); ++id)
      if (!rules.allowed->test(static_cast<std::int32_t>(id))) logits[id] = kNever;
  for (const std::int64_t id : rules.forbidden)
    if (id >= 0 && id < static_cast<std::int64_t>(logits.size())) logits[static_cast<std::size_t>(id)] = kNever;
}

// One factor a token, however often it was seen.
void penalize_repetition(std::span<float> logits, double penalty, std::span<const std::int32_t> seen) {
  std::vector<std::int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto factor = static_cast<float>(penalty);
  for (const std::int32_t id : ids) {
    float& logit = logits[static_cast<std::size_t>(id)];
    if (logit != kNever) logit = std::clamp(logit > 0 ? logit / factor : logit * factor, -kMost, kMost);
  }
}

void penalize_generated(std::span<float> logits, const SamplingParams& params,
                        std::span<const std::int32_t> generated) {
  std::vector<std::int32_t> ids(generated.begin(), generated.end());
  std::sort(ids.begin(), ids.end());
  for (auto first = ids.begin(); first != ids.end();) {
    const auto last = std::upper_bound(first, ids.end(), *first);
    float& logit = logits[static_cast<std::size_t>(*first)];
    set_logit(logit, logit - params.frequency_penalty * static_cast<double>(last - first) - params.presence_penalty);
    first = last;
  }
}

// Ids by falling logit, ties by id so that the order is defined; sorted as far as was asked for. A draw seldom needs
// more than the first few of 150,000.
class Ranking {
 public:
  Ranking(std::span<const float> logits, std::vector<std::int32_t> ids) : logits_(logits), ids_(std::move(ids)) {}

  std::size_t size() const { return ids_.size(); }
  std::int32_t operator[](std::size_t rank) {
    while (rank >= sorted_) sort_more(std::max<std::size_t>(64, sorted_ * 3));
    return ids_[rank];
  }
  // Only the first `count`.
  void cut(std::size_t count) {
    if (count >= ids_.size()) return;
    if (count > sorted_) sort_more(count - sorted_);
    ids_.resize(count);
  }

 private:
  void sort_more(std::size_t count) {
    const auto above = [&](std::int32_t a, std::int32_t b) {
      const float x = logits_[static_cast<std::size_t>(a)], y = logits_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    };
    count = std::min(count, ids_.size() - sorted_);
    const auto begin = ids_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto middle = begin + static_cast<std::ptrdiff_t>(count);
    if (count <= 256) {  // one comparison for nearly all of the others
      std::partial_sort(begin, middle, ids_.end(), above);
    } else {
      if (middle != ids_.end()) std::nth_element(begin, middle, ids_.end(), above);
      std::sort(begin, middle, above);
    }
    sorted_ += count;
  }

  std::span<const float> logits_;
  std::vector<std::int32_t> ids_;
  std::size_t sorted_ = 0;
};

std::int32_t draw(std::span<const float> logits, const SamplingParams& params, std::int64_t step,
                  std::int32_t most_likely) {
  const double highest = logits[static_cast<std::size_t>(most_likely)];
  const auto weight = [&](std::int32_t id) {
    return std::exp((logits[static_cast<std::size_t>(id)] - highest) / params.temperature);
  };
  std::vector<std::int32_t> ids;
  ids.reserve(logits.size());
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (logits[id] != kNever) ids.push_back(static_cast<std::int32_t>(id));
  if (params.min_p > 0) std::erase_if(ids, [&](std::int32_t id) { return weight(id) < params.min_p; });

  double total = 0;
  if (params.top_k == 0 || params.top_k >= static_cast<std::int64_t>(ids.size()))
    for (const std::int32_t id : ids) total += weight(id);
  Ranking ranking(logits, std::move(ids));
  if (params.top_k > 0 && params.top_k < static_cast<std::int64_t>(ranking.size())) {
    ranking.cut(static_cast<std::size_t>(params.top_k));
    for (std::size_t rank = 0; rank < ranking.size(); ++rank) total += weight(ranking[rank]);
  }
  std::size_t count = ranking.size();
  if (params.top_p < 1) {
    // The shortest head whose probability reaches top_p.
    double head = 0;
    std::size_t length = 0;
    while (length < count && head < params.top_p * total) head += weight(ranking[length++]);
    count = std::max<std::size_t>(length, 1);
    total = length == 0 ? weight(ranking[0]) : head;
  }
  double left = uniform(params.seed, static_cast<std::uint64_t>(step)) * total;
  for (std::size_t rank = 0; rank < count; ++rank) {
    left -= weight(ranking[rank]);
    if (left < 0) return ranking[rank];
  }
  return ranking[count - 1];
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

Status check_sampling(const SamplingParams& params, std::int64_t vocab_size) {
  if (!(params.temperature >= 0 && params.temperature <= 100))
    return fail(Code::kInvalidArgument, "temperature: expected a number from 0 to 100, got {}", params.temperature);
  if (params.top_k < 0) return fail(Code::kInvalidArgument, "top_k: expected 0 (all) or more, got {}", params.top_k);
  if (!(params.top_p >= 0 && params.top_p <= 1))
    return fail(Code::kInvalidArgument, "top_p: expected a number from 0 to 1, got {}", params.top_p);
  if (!(params.repetition_penalty > 0 && params.repetition_penalty <= 100))
    return fail(Code::kInvalidArgument, "repetition_penalty: expected a number above 0 and at most 100, got {}",
                params.repetition_penalty);
  if (!(params.min_p >= 0 && params.min_p <= 1))
    return fail(Code::kInvalidArgument, "min_p: expected a number from 0 to 1, got {}", params.min_p);
  if (!(params.frequency_penalty >= -2 && params.frequency_penalty <= 2))
    return fail(Code::kInvalidArgument, "frequency_penalty: expected a number from -2 to 2, got {}",
                params.frequency_penalty);
  if (!(params.presence_penalty >= -2 && params.presence_penalty <= 2))
    return fail(Code::kInvalidArgument, "presence_penalty: expected a number from -2 to 2, got {}",
                params.presence_penalty);
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || (vocab_size > 0 && id >= vocab_size))
      return fail(Code::kInvalidArgument, "logit_bias: expected token ids from 0 to {}, got {}", vocab_size - 1, id);
    if (!(bias >= -100 && bias <= 100))
      return fail(Code::kInvalidArgument, "logit_bias: expected numbers from -100 to 100, got {} for token {}", bias,
                  id);
  }
  return {};
}

bool all_finite(std::span<const float> logits) {
  constexpr std::uint32_t kExponent = 0x7F800000;  // all ones in NaN and infinity only
  bool bad = false;
  for (const float logit : logits) bad |= (std::bit_cast<std::uint32_t>(logit) & kExponent) == kExponent;
  return !bad;
}

std::optional<std::int32_t> sample(std::span<float> logits, const SamplingParams& params,
                                   std::span<const std::int32_t> seen, std::int64_t step, const TokenRules& rules) {
  mask(logits, rules);
  for (const auto& [id, bias] : params.logit_bias) {
    float& logit = logits[static_cast<std::size_t>(id)];
    set_logit(logit, logit + bias);
  }
  if (params.repetition_penalty != 1.0) penalize_repetition(logits, params.repetition_penalty, seen);
  if (params.frequency_penalty != 0 || params.presence_penalty != 0)
    penalize_generated(logits, params, rules.generated);
  const auto most_likely = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (logits[static_cast<std::size_t>(most_likely)] == kNever) return std::nullopt;
  if (params.temperature == 0 || params.top_k == 1) return most_likely;
  return draw(logits, params, step, most_likely);
}

std::int32_t sample(std::span<float> logits, const SamplingParams& params, std::span<const std::int32_t> seen,
                    std::int64_t step) {
  return *sample(logits, params, seen, step, {});
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
