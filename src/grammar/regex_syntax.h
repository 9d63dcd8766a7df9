// The syntax of regular expressions: text to a nondeterministic automaton over code points. Used by regex.cpp only.
//
// Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace chiasm {

inline constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

// Sorted, disjoint, inclusive.
using CodePoints = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

struct RegexState {
  enum class Kind : std::uint8_t { kCharacter, kSplit, kBegin, kEnd, kAccept };
  Kind kind = Kind::kSplit;
  std::uint32_t set = 0;                   // kCharacter: which of `sets`
  std::uint32_t to = 0, other = kNowhere;  // kSplit has up to two ways

  static constexpr std::uint32_t kNowhere = 0xFFFFFFFF;
};

struct RegexGraph {
  std::vector<RegexState> states;
  std::vector<CodePoints> sets;
  std::uint32_t start = 0, accept = 0;
};

Result<RegexGraph> parse_regex(std::string_view pattern);

}  // namespace chiasm
