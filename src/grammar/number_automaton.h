// The spellings of JSON numbers within bounds, as automata over bytes: digit by digit, exactly.
//
// Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "grammar/byte_automaton.h"
#include "grammar/work_budget.h"

namespace chiasm {

// digits x 10^exponent, exact. Zero is {0, 0}; otherwise the last digit is not zero.
struct Decimal {
  std::int64_t digits = 0;
  int exponent = 0;

  // Of a double the shortest digits that read back as the same double. Nothing where `value` is no number.
  static std::optional<Decimal> of(const JsonValue& value);
  // A JSON number of at most 18 digits, leading zeros not counted.
  static std::optional<Decimal> parse(std::string_view number);
  bool is_integer() const { return exponent >= 0; }
  bool operator==(const Decimal&) const = default;
};

// -1, 0, 1.
int compare(const Decimal& a, const Decimal& b);

struct NumberRule {
  bool integer = false;
  std::optional<Decimal> low, high;
  bool low_excluded = false, high_excluded = false;
  std::optional<Decimal> multiple_of;  // above zero

  // The tighter of what is there and the new bound.
  void raise_low(const Decimal& bound, bool excluded);
  void lower_high(const Decimal& bound, bool excluded);
  // False where the least common multiple is beyond what is counted.
  bool add_multiple(const Decimal& step);
  bool is_free() const { return !low && !high && !multiple_of; }
  // False also where the question cannot be decided in 128 bits.
  bool allows(const Decimal& value) const;
};

// Without bounds: integers of up to 18 digits, numbers of up to 15 digits before and 15 behind the point with an
// exponent of up to two digits, so that a double holds every one. With bounds numbers have no exponent and at most 15
// significant digits: no two of them are the same double. Never "-0". Nothing where no such number exists;
// kUnimplemented where bounds are beyond what is counted in 128 bits, or the automaton would be too large.
Result<std::optional<ByteAutomaton>> number_automaton(const NumberRule& rule, WorkBudget& budget);

}  // namespace chiasm
