#include "language/scheduler.h"

#include <algorithm>

namespace chiasm {

std::vector<StepItem> plan_step(std::span<const std::int64_t> pending, std::int64_t token_budget) {
  std::vector<StepItem> out;
  for (std::size_t i = 0; i < pending.size(); ++i)
    if (pending[i] == 0) out.push_back({static_cast<std::int64_t>(i), 1});
  std::int64_t left = token_budget - static_cast<std::int64_t>(out.size());
  if (out.empty()) left = std::max<std::int64_t>(left, 1);
  for (std::size_t i = 0; i < pending.size() && left > 0; ++i) {
    const std::int64_t tokens = std::min(pending[i], left);
    if (tokens > 0) out.push_back({static_cast<std::int64_t>(i), tokens});
    left -= tokens;
  }
  return out;
}

}  // namespace chiasm
