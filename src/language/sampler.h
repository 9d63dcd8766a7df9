// From one row of logits to the next token.
//
// Order as in transformers: repetition penalty, temperature, top-k, top-p. Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "models/config.h"

namespace chiasm {

struct SamplingParams {
  double temperature = 0;  // 0: greedy
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1.0;
  double repetition_penalty = 1.0;
  std::uint64_t seed = 0;

  // What the checkpoint asks for; greedy when do_sample is false.
  static SamplingParams from(const GenerationConfig& config);
};

// kInvalidArgument naming the field and its range: "top_p: expected ...". Costs nothing, so that whoever takes
// parameters from a user or a file can ask before any work is done.
Status check_sampling(const SamplingParams& params);

// Damaged weights show as NaN or infinity, with which neither an order nor a probability is defined.
bool all_finite(std::span<const float> logits);

// The next token. `logits` must be finite; they are changed. `seen`: prompt and generated tokens, for the repetition
// penalty. The draw depends on (seed, step) only, never on what else runs. Ties go to the lower id.
std::int32_t sample(std::span<float> logits, const SamplingParams& params, std::span<const std::int32_t> seen,
                    std::int64_t step);

struct TokenLogprob {
  std::int32_t id = 0;
  double logprob = 0;
};

// Natural-log probabilities of the raw logits, which must be finite: of `chosen`, and of the `count` most likely
// tokens, best first.
struct Logprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;
};
Logprobs logprobs_of(std::span<const float> logits, std::int32_t chosen, std::int64_t count);

}  // namespace chiasm
