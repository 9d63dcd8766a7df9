// Regular expressions of JSON schemas (ECMA-262 with the u flag, a subset) as automata over code points.
//
// Supported: literals, ".", classes, \d \w \s and their opposites, \n \r \t \f \v \0 \xHH \uHHHH \u{H} \cX, groups
// (plain, non-capturing, named), alternation, * + ? {m} {m,} {m,n} greedy or lazy, ^ and $ anywhere. Not: back
// references, look-around, \b, \p. A pattern matches anywhere in a text, unless anchored. Thread contract: immutable
// once built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/byte_automaton.h"
#include "grammar/work_budget.h"

namespace chiasm {

// A deterministic automaton over code points, complete over the classes that it tells apart.
struct CodePointAutomaton {
  static constexpr std::uint32_t kDead = 0xFFFFFFFF;

  // Code points from `low` up to the next range's belong to `symbol`. The first range begins at 0.
  struct Range {
    std::uint32_t low = 0;
    std::uint32_t symbol = 0;
  };
  std::vector<Range> ranges;
  std::uint32_t symbols = 0;
  std::vector<std::uint32_t> next;  // [state][symbol]; state 0 is the start
  std::vector<std::uint8_t> accepts;

  std::size_t size() const { return accepts.size(); }
};

// kInvalidArgument: not a regular expression; kUnimplemented: one that is not supported or too large.
Result<CodePointAutomaton> regex_automaton(std::string_view pattern, WorkBudget& budget);

// Every text of `low` to `high` code points; `high` < 0: without end. kUnimplemented where that is too many states.
Result<CodePointAutomaton> length_automaton(std::int64_t low, std::int64_t high, WorkBudget& budget);

Result<CodePointAutomaton> intersect(const CodePointAutomaton& a, const CodePointAutomaton& b, WorkBudget& budget);

// The JSON strings, quotes included and spelled as quote_json() does, whose characters the automaton accepts.
Result<std::optional<ByteAutomaton>> string_automaton(const CodePointAutomaton& characters, WorkBudget& budget);

}  // namespace chiasm
