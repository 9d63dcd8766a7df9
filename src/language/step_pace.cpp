#include "language/step_pace.h"

#include <algorithm>

namespace chiasm {
namespace {

// Follows changes within a few steps and does not jump with one that something else disturbed.
void follow(double& known, double seen) { known = known == 0 ? seen : known + (seen - known) / 4; }

}  // namespace

void StepPace::record(std::int64_t prompt_tokens, std::int64_t decode_tokens, double ms) {
  if (prompt_tokens == 0) {
    if (decode_tokens > 0) follow(decode_ms_, ms);
    return;
  }
  const double added = decode_tokens > 0 ? std::max(ms - decode_ms_, 0.0) : ms;
  follow(token_ms_, std::max(added / static_cast<double>(prompt_tokens), 1e-6));
}

std::int64_t StepPace::prompt_tokens(std::int64_t most) const {
  if (gap_ms_ <= 0 || token_ms_ == 0) return most;
  const double fitting = gap_ms_ / token_ms_;
  if (fitting >= static_cast<double>(most)) return most;
  return std::min(most, std::max(kFewest, static_cast<std::int64_t>(fitting)));
}

}  // namespace chiasm
