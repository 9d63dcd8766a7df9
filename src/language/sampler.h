// From one row of logits to the next token.
//
// Order as in vLLM (vllm/v1/sample/sampler.py of v0.22): what may come at all (a constraint's mask, end tokens before
// min_tokens), logit bias, penalties (repetition, frequency, presence), temperature, min-p, top-k, top-p. Where only
// repetition penalty, temperature, top-k and top-p are given this is transformers' order too.
// Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "grammar/token_constraint.h"
#include "models/config.h"

namespace chiasm {

struct SamplingParams {
  double temperature = 0;  // 0: greedy
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1.0;
  double repetition_penalty = 1.0;
  std::uint64_t seed = 0;
  double min_p = 0;              // tokens less likely than this share of the most likely one's probability are left out
  double frequency_penalty = 0;  // taken from a token's logit as often as it was generated
  double presence_penalty = 0;   // taken once from each that was
  std::vector<std::pair<std::int32_t, double>> logit_bias;  // (token id, what is added to its logit)

  // What the checkpoint asks for; greedy when do_sample is false.
  static SamplingParams from(const GenerationConfig& config);
};

// kInvalidArgument naming the field and its range: "top_p: expected ...". Costs nothing, so that whoever takes
// parameters from a user or a file can ask before any work is done. Ids of logit_bias are below `vocab_size` (any where
// it is 0).
Status check_sampling(const SamplingParams& params, std::int64_t vocab_size = 0);

// Damaged weights show as NaN or infinity, with which neither an order nor a probability is defined.
bool all_finite(std::span<const float> logits);

// What one draw knows beside its parameters.
struct TokenRules {
  std::span<const std::int32_t> generated;       // for the frequency and presence penalties
  const TokenMask* allowed = nullptr;            // nothing else may come; may be null
  std::span<const std::int64_t> forbidden = {};  // these may not; ids beyond the vocabulary are passed over
};

// The next token, or nothing where none may come. `logits` must be finite; they are changed. `seen`: prompt and
// generated tokens, for the repetition penalty. The draw depends on (seed, step) only, never on what else runs. Ties go
// to the lower id.
std::optional<std::int32_t> sample(std::span<float> logits, const SamplingParams& params,
                                   std::span<const std::int32_t> seen, std::int64_t step, const TokenRules& rules);
// The same where every token may come.
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
