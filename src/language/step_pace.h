// How many tokens of prompts fit into a step in which others decode, so that no stream stands still for them longer
// than a given time.
//
// Learns from the steps themselves: what a decoding step takes, and what each prompt token adds to it. Results do not
// depend on it, as they do not depend on how a prompt is cut. Thread contract: one thread.
#pragma once

#include <cstdint>

namespace chiasm {

class StepPace {
 public:
  // `gap_ms`: what prompts may add to a step; 0: as much as they like.
  explicit StepPace(double gap_ms) : gap_ms_(gap_ms) {}

  // A step of so many tokens took `ms`.
  void record(std::int64_t prompt_tokens, std::int64_t decode_tokens, double ms);

  // Tokens of prompts for a step in which somebody decodes: from kFewest, so that prompts move at all, to `most`.
  std::int64_t prompt_tokens(std::int64_t most) const;

  // A step of fewer reads all weights for next to nothing.
  static constexpr std::int64_t kFewest = 4;

 private:
  double gap_ms_;
  double decode_ms_ = 0, token_ms_ = 0;  // 0: not seen yet
};

}  // namespace chiasm
