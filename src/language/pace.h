// How many tokens of prompts a step may compute beside sequences that decode, so that their streams stay even.
//
// Learned from the steps themselves: what a step takes beyond a step of decoding alone is its prompts' doing, within
// bounds that prompts computed alone set. Answers do not depend on it (the row contract). Thread contract: one thread.
#pragma once

#include <cstdint>

namespace chiasm {

class Pace {
 public:
  // `stall_ms`: what prompts may add to the time of a step beside decoding; 0: whatever they take.
  explicit Pace(double stall_ms) : stall_ms_(stall_ms) {}

  // A step of these tokens took `ms`.
  void took(std::int64_t prefill_tokens, std::int64_t decode_tokens, double ms);

  // At least 1; INT64_MAX without a limit.
  std::int64_t prefill_tokens() const;

 private:
  double stall_ms_;
  // 0: not known yet.
  double decode_ms_ = 0;  // of a step of decoding alone
  double alone_ms_ = 0;   // of a token among many of prompts, with nobody decoding
  double beside_ms_ = 0;  // of a token among the few beside decoding, which are dearer
};

}  // namespace chiasm
