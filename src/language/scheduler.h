// Which tokens the next step computes: every sequence that decodes gets its one token, and what is left of the budget
// goes to prompts in the order they came, cut where it ends.
//
// Thread contract: a pure function.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace chiasm {

struct StepItem {
  std::int64_t sequence = 0;
  std::int64_t tokens = 0;
  bool operator==(const StepItem&) const = default;
};

// pending[i]: prompt tokens that sequence i has not computed; 0 for one that decodes. At least one token is planned
// when there is a sequence; decoding ones are never held back by the budget.
std::vector<StepItem> plan_step(std::span<const std::int64_t> pending, std::int64_t token_budget);

}  // namespace chiasm
