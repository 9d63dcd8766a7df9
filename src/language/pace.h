// What others may take between two tokens of a stream, so that streams stay even: tokens of prompts in the step, and
// the processors before it for those who stand behind the engine (right_of_way.h).
//
// Learned from the steps themselves: what a step takes beyond a step of decoding alone is its prompts' doing, within
// bounds that prompts computed alone set. Answers do not depend on it (the row contract). Thread contract: one thread.
#pragma once

#include <cstdint>

namespace chiasm {

class Pace {
 public:
  // `stall_ms`: what others may add to the time of a step that decodes, all together; 0: prompts what they take.
  explicit Pace(double stall_ms) : stall_ms_(stall_ms) {}

  // A step of these tokens took `ms`.
  void took(std::int64_t prefill_tokens, std::int64_t decode_tokens, double ms);

  // At least 1; INT64_MAX without a limit. `shared`: those behind want to compute too, and a third of the stall is
  // theirs.
  std::int64_t prefill_tokens(bool shared = false) const;
  // For them: half of what a step takes, so that streams keep two thirds of their speed, within the stall or their
  // third of it. Long enough for somebody to wake and do something.
  double pause_ms(bool shared = false) const;

 private:
  double stall_ms_;
  // 0: not known yet.
  double step_ms_ = 0;    // of a step that decodes, with or without prompts
  double decode_ms_ = 0;  // of a step of decoding alone
  double alone_ms_ = 0;   // of a token among many of prompts, with nobody decoding
  double beside_ms_ = 0;  // of a token among the few beside decoding, which are dearer
};

}  // namespace chiasm
