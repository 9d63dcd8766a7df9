#include "language/pace.h"

#include <algorithm>
#include <limits>

namespace chiasm {
namespace {

constexpr double kWeight = 0.5;            // of the latest step among those before
constexpr std::int64_t kMany = 32;         // tokens over which the reading of the weights is spread thin
constexpr double kDearest = 4;             // times what a token takes among many: beyond, it is something else's doing
constexpr std::int64_t kMost = 1'000'000;  // more than any step takes
constexpr double kShared = 2.0 / 3;        // of the stall, for prompts beside others: they are nearer to their answer
constexpr double kPause = 0.5;             // of a step
constexpr double kLeastPauseMs = 1;

double blend(double before, double now) { return before == 0 ? now : before + kWeight * (now - before); }

}  // namespace

void Pace::took(std::int64_t prefill_tokens, std::int64_t decode_tokens, double ms) {
  if (decode_tokens > 0) step_ms_ = blend(step_ms_, ms);
  if (prefill_tokens == 0) {
    decode_ms_ = blend(decode_ms_, ms);
    return;
  }
  const auto tokens = static_cast<double>(prefill_tokens);
  if (decode_tokens == 0) {
    if (prefill_tokens >= kMany) alone_ms_ = blend(alone_ms_, ms / tokens);
    return;
  }
  if (decode_ms_ == 0) return;
  double each = std::max(0.0, ms - decode_ms_) / tokens;
  // decode_ms_ may be of long ago, when fewer decoded.
  if (alone_ms_ > 0) each = std::clamp(each, alone_ms_, kDearest * alone_ms_);
  beside_ms_ = blend(beside_ms_, each);
}

std::int64_t Pace::prefill_tokens(bool shared) const {
  if (stall_ms_ <= 0) return std::numeric_limits<std::int64_t>::max();
  const double allowed = shared ? kShared * stall_ms_ : stall_ms_;
  const double each = beside_ms_ > 0 ? beside_ms_ : alone_ms_;
  if (each <= 0) return kMany;
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::min<double>(allowed / each, kMost)));
}

double Pace::pause_ms(bool shared) const {
  double out = kPause * step_ms_;
  if (stall_ms_ > 0) out = std::min(out, shared ? (1 - kShared) * stall_ms_ : stall_ms_);
  return std::max(out, kLeastPauseMs);
}

}  // namespace chiasm
