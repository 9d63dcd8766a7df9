#include "grammar/number_automaton.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace chiasm {

namespace {

using State = ByteAutomaton::State;
__extension__ typedef __int128 Wide;

constexpr std::size_t kMaxStates = 20'000;
constexpr int kIntegerDigits = 18;  // 10^18 fits an int64
constexpr int kExactDigits = 15;    // any two numbers of so many digits are different doubles

Wide power_of_ten(int exponent) {
  Wide out = 1;
  for (int i = 0; i < exponent; ++i) out *= 10;
  return out;
}

int digits_of(Wide value) {
  int out = 1;
  for (; value >= 10; value /= 10) ++out;
  return out;
}

Wide magnitude(const Decimal& value) { return value.digits < 0 ? -Wide{value.digits} : Wide{value.digits}; }

// The decimal digits before the point; at most 0 for what is below 1.
int integer_digits(const Decimal& value) {
  return value.digits == 0 ? 0 : digits_of(magnitude(value)) + value.exponent;
}

// value x 10^scale rounded down; `exact` says whether nothing was lost. |value| is below 10^18, scale at most 18.
Wide scaled_floor(const Decimal& value, int scale, bool& exact) {
  const int exponent = value.exponent + scale;
  exact = true;
  if (value.digits == 0) return 0;
  if (exponent >= 0) return Wide{value.digits} * power_of_ten(exponent);
  exact = false;
  if (-exponent > 36) return value.digits < 0 ? -1 : 0;
  const Wide divisor = power_of_ten(-exponent);
  Wide out = Wide{value.digits} / divisor;
  const Wide rest = Wide{value.digits} % divisor;
  exact = rest == 0;
  if (rest < 0) --out;
  return out;
}

// -?(0|[1-9]d{0,14})(.d{1,15})?([eE][+-]?d{1,2})?
ByteAutomaton free_number() {
  ByteAutomatonBuilder builder;
  const State start = builder.add_state(), minus = builder.add_state(), zero = builder.add_state(true);
  const State point = builder.add_state(), e = builder.add_state(), sign = builder.add_state();
  const State exponent = builder.add_state(true), last = builder.add_state(true);
  builder.add_edge(start, '-', minus);
  builder.add_edge(start, '0', zero);
  builder.add_edge(minus, '0', zero);
  builder.add_edge(zero, '.', point);
  const auto exponent_from = [&](State from) {
    builder.add_edge(from, 'e', e);
    builder.add_edge(from, 'E', e);
  };
  exponent_from(zero);
  State from = builder.add_state(true);
  builder.add_edge(start, '1', '9', from);
  builder.add_edge(minus, '1', '9', from);
  for (int digit = 1;; ++digit) {
    builder.add_edge(from, '.', point);
    exponent_from(from);
    if (digit == kExactDigits) break;
    const State to = builder.add_state(true);
    builder.add_edge(from, '0', '9', to);
    from = to;
  }
  from = point;
  for (int digit = 0; digit < kExactDigits; ++digit) {
    const State to = builder.add_state(true);
    builder.add_edge(from, '0', '9', to);
    exponent_from(to);
    from = to;
  }
  builder.add_edge(e, '+', sign);
  builder.add_edge(e, '-', sign);
  builder.add_edge(e, '0', '9', exponent);
  builder.add_edge(sign, '0', '9', exponent);
  builder.add_edge(exponent, '0', '9', last);
  return *builder.build();
}

// Numbers with at most `scale` digits behind the point whose value x 10^scale lies in a range and is a multiple of
// `step`. What may follow some digits depends on them only through the part of the range that they leave, counted from
// its begin, and their remainder: digits that leave the same share a state.
class RangeBuilder {
 public:
  RangeBuilder(int scale, Wide step, WorkBudget& budget) : scale_(scale), step_(step), budget_(budget) {
    builder_.add_state();
  }

  // 0 <= low <= high. `sign`: the state in which the first digit comes.
  bool add(State sign, Wide low, Wide high) {
    low_ = low;
    high_ = high;
    states_.clear();
    for (int digit = 0; digit <= 9; ++digit) {
      const State to = integer_state(digit);
      if (to != ByteAutomaton::kDead) builder_.add_edge(sign, static_cast<char>('0' + digit), to);
    }
    while (!queue_.empty()) {
      if (builder_.size() > kMaxStates || !budget_.spend(50)) return false;
      const Pending at = queue_.back();
      queue_.pop_back();
      for (int digit = 0; digit <= 9; ++digit) {
        if (at.point < 0 ? at.prefix == 0 : at.point == scale_) break;
        const Wide prefix = at.prefix * 10 + digit;
        const State to = at.point < 0 ? integer_state(prefix) : fraction_state(prefix, at.point + 1);
        if (to != ByteAutomaton::kDead) builder_.add_edge(at.state, static_cast<char>('0' + digit), to);
      }
      if (at.point < 0 && scale_ > 0) {
        const State to = fraction_state(at.prefix, 0);
        if (to != ByteAutomaton::kDead) builder_.add_edge(at.state, '.', to);
      }
    }
    return true;
  }

  State add_minus() {
    const State minus = builder_.add_state();
    builder_.add_edge(ByteAutomaton::kStart, '-', minus);
    return minus;
  }

  std::optional<ByteAutomaton> build() const { return builder_.build(); }

 private:
  struct Pending {
    State state;
    Wide prefix;
    int point;  // digits behind the point, -1 before it
  };

  // What is left of the range among the values that begin at `first`, `size` of them. False: nothing.
  bool left(Wide first, Wide size, std::vector<Wide>& key) const {
    const Wide low = std::max(low_, first), high = std::min(high_, first + size - 1);
    key.push_back(low <= high ? low - first : -1);
    key.push_back(low <= high ? high - first : -1);
    return low <= high;
  }

  State integer_state(Wide prefix) {
    std::vector<Wide> key{-1};
    bool any = false;
    for (Wide size = power_of_ten(scale_);; size *= 10) {
      any = left(prefix * size, size, key) || any;
      if (prefix == 0 || prefix * size * 10 > high_) break;  // nothing follows a leading zero
    }
    return any ? state(std::move(key), prefix, -1) : ByteAutomaton::kDead;
  }

  State fraction_state(Wide prefix, int point) {
    std::vector<Wide> key{point};
    const Wide size = power_of_ten(scale_ - point);
    return left(prefix * size, size, key) ? state(std::move(key), prefix, point) : ByteAutomaton::kDead;
  }

  State state(std::vector<Wide> key, Wide prefix, int point) {
    // key[1]: where the range begins among the values that begin with these digits and go on behind the point only.
    const Wide value = prefix * power_of_ten(scale_ - std::max(point, 0));
    const bool accepts = point != 0 && key[1] == 0 && value % step_ == 0;
    if (step_ > 1) key.push_back(prefix % step_);
    key.push_back(prefix == 0 && point < 0 ? 1 : 0);
    const auto [it, added] = states_.try_emplace(std::move(key), ByteAutomaton::kDead);
    if (added) {
      it->second = builder_.add_state(accepts);
      queue_.push_back({it->second, prefix, point});
    }
    return it->second;
  }

  int scale_;
  Wide step_, low_ = 0, high_ = 0;
  WorkBudget& budget_;
  ByteAutomatonBuilder builder_;
  std::map<std::vector<Wide>, State> states_;
  std::vector<Pending> queue_;
};

struct Scaled {
  int scale = 0;
  Wide low = 0, high = 0, step = 1;
};

// The bounds in units of 10^-scale.
void apply_bounds(const NumberRule& rule, Scaled& out) {
  bool exact = false;
  if (rule.low && integer_digits(*rule.low) <= kIntegerDigits) {
    const Wide floor = scaled_floor(*rule.low, out.scale, exact);
    out.low = std::max(out.low, exact && !rule.low_excluded ? floor : floor + 1);
  }
  if (rule.high && integer_digits(*rule.high) <= kIntegerDigits) {
    const Wide floor = scaled_floor(*rule.high, out.scale, exact);
    out.high = std::min(out.high, exact && rule.high_excluded ? floor - 1 : floor);
  }
}

Result<Scaled> scale_rule(const NumberRule& rule) {
  for (const auto* bound : {&rule.low, &rule.high}) {
    const bool inner = *bound && ((bound == &rule.low) == ((*bound)->digits > 0));
    if (inner && integer_digits(**bound) > kIntegerDigits)
      return fail(Code::kUnimplemented, "numbers of more than {} digits are not written", kIntegerDigits);
  }
  Scaled out;
  if (rule.multiple_of) {
    const Decimal& step = *rule.multiple_of;
    if (integer_digits(step) > 9 || step.exponent < -9)
      return fail(Code::kUnimplemented, "a step that large or fine is not counted");
    if (!rule.integer) out.scale = std::max(0, -step.exponent);
    bool exact = true;
    if (rule.integer && step.exponent < 0)  // n is a multiple of a / 10^k when n is one of a / gcd(a, 10^k)
      out.step = step.digits / std::gcd(step.digits, static_cast<std::int64_t>(power_of_ten(-step.exponent)));
    else
      out.step = scaled_floor(step, out.scale, exact);
  }
  if (rule.integer || rule.multiple_of) {
    // Fewer digits under a step: each remainder is a state for each of them.
    int digits = rule.integer ? kIntegerDigits : kExactDigits - out.scale;
    if (out.step > 1) {
      digits = std::min(digits, 9);
      for (const auto* bound : {&rule.low, &rule.high})
        if (*bound) digits = std::clamp(integer_digits(**bound), digits, rule.integer ? kIntegerDigits : digits);
    }
    out.high = power_of_ten(digits) - 1;
    if (!rule.integer) out.high *= power_of_ten(out.scale);
    out.low = -out.high;
    apply_bounds(rule, out);
    return out;
  }
  // 15 digits in all: the point stands behind as many as the bounds need.
  int before = 0;
  if (rule.low) before = std::max(before, integer_digits(*rule.low));
  if (rule.high) before = std::max(before, integer_digits(*rule.high));
  if (!rule.low || !rule.high) before = std::max(9, before + 1);
  before = std::clamp(before, 1, kIntegerDigits);
  out.scale = std::max(0, kExactDigits - before);
  out.high = power_of_ten(before + out.scale) - 1;
  out.low = -out.high;
  apply_bounds(rule, out);
  if (out.low > out.high && rule.low && rule.high && compare(*rule.low, *rule.high) < 0)
    return fail(Code::kUnimplemented, "no number of {} digits lies between the bounds", kExactDigits);
  return out;
}

}  // namespace

std::optional<Decimal> Decimal::parse(std::string_view number) {
  Decimal out;
  std::size_t at = 0;
  const bool negative = number.starts_with('-');
  bool point = false;
  for (at = negative ? 1 : 0; at < number.size() && number[at] != 'e' && number[at] != 'E'; ++at) {
    if (number[at] == '.') {
      point = true;
      continue;
    }
    if (number[at] < '0' || number[at] > '9' || out.digits >= 922'337'203'685'477'580) return std::nullopt;
    out.digits = out.digits * 10 + (number[at] - '0');
    if (point) --out.exponent;
  }
  if (at < number.size()) {
    int exponent = 0;
    at += number.substr(at + 1).starts_with('+') ? 2 : 1;
    const auto [end, error] = std::from_chars(number.data() + at, number.data() + number.size(), exponent);
    if (error != std::errc() || end != number.data() + number.size() || std::abs(exponent) > 10'000)
      return std::nullopt;
    out.exponent += exponent;
  }
  if (out.digits == 0) return Decimal{};
  for (; out.digits % 10 == 0; out.digits /= 10) ++out.exponent;
  if (negative) out.digits = -out.digits;
  return out;
}

std::optional<Decimal> Decimal::of(const JsonValue& value) {
  if (const auto integer = value.integer(); value.is_integer() && integer) {
    if (*integer == 0) return Decimal{};
    Decimal out{*integer, 0};
    for (; out.digits % 10 == 0; out.digits /= 10) ++out.exponent;
    return out;
  }
  const auto number = value.number();
  if (!number) return std::nullopt;
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), *number, std::chars_format::scientific).ptr;
  return parse({text, end});
}

int compare(const Decimal& a, const Decimal& b) {
  const auto sign = [](const Decimal& value) { return value.digits > 0 ? 1 : value.digits < 0 ? -1 : 0; };
  if (sign(a) != sign(b)) return sign(a) < sign(b) ? -1 : 1;
  if (sign(a) == 0) return 0;
  const int larger = sign(a);  // what the larger magnitude means
  if (integer_digits(a) != integer_digits(b)) return integer_digits(a) < integer_digits(b) ? -larger : larger;
  // Equally many digits before the point and at most 19 in all: the exponents differ by less than 19.
  const int exponent = std::min(a.exponent, b.exponent);
  const Wide left = magnitude(a) * power_of_ten(a.exponent - exponent);
  const Wide right = magnitude(b) * power_of_ten(b.exponent - exponent);
  return left == right ? 0 : left < right ? -larger : larger;
}

void NumberRule::raise_low(const Decimal& bound, bool excluded) {
  const int order = low ? compare(bound, *low) : 1;
  if (order > 0) low_excluded = excluded;
  if (order == 0) low_excluded = low_excluded || excluded;
  if (order > 0) low = bound;
}

void NumberRule::lower_high(const Decimal& bound, bool excluded) {
  const int order = high ? compare(bound, *high) : -1;
  if (order < 0) high_excluded = excluded;
  if (order == 0) high_excluded = high_excluded || excluded;
  if (order < 0) high = bound;
}

bool NumberRule::add_multiple(const Decimal& step) {
  if (!multiple_of) {
    multiple_of = step;
    return true;
  }
  const int exponent = std::min(step.exponent, multiple_of->exponent);
  const int shift = step.exponent - exponent, own_shift = multiple_of->exponent - exponent;
  if (integer_digits(step) - exponent > 18 || integer_digits(*multiple_of) - exponent > 18) return false;
  const std::int64_t a = step.digits * static_cast<std::int64_t>(power_of_ten(shift));
  const std::int64_t b = multiple_of->digits * static_cast<std::int64_t>(power_of_ten(own_shift));
  const Wide least = Wide{a} / std::gcd(a, b) * b;
  if (least >= power_of_ten(kIntegerDigits)) return false;
  multiple_of = Decimal{static_cast<std::int64_t>(least), exponent};
  for (; multiple_of->digits % 10 == 0; multiple_of->digits /= 10) ++multiple_of->exponent;
  return true;
}

bool NumberRule::allows(const Decimal& value) const {
  if (integer && !value.is_integer()) return false;
  if (low && compare(value, *low) < (low_excluded ? 1 : 0)) return false;
  if (high && compare(value, *high) > (high_excluded ? -1 : 0)) return false;
  if (!multiple_of || value.digits == 0) return true;
  const int exponent = std::min(value.exponent, multiple_of->exponent);
  if (value.exponent - exponent > 18 || multiple_of->exponent - exponent > 18) return false;
  return magnitude(value) * power_of_ten(value.exponent - exponent) %
             (magnitude(*multiple_of) * power_of_ten(multiple_of->exponent - exponent)) ==
         0;
}

Result<std::optional<ByteAutomaton>> number_automaton(const NumberRule& rule, WorkBudget& budget) {
  if (rule.is_free() && !rule.integer) return free_number();
  ASSIGN_OR_RETURN(const Scaled range, scale_rule(rule));
  RangeBuilder builder(range.scale, range.step, budget);
  bool fits = true;
  if (range.high >= 0 && range.low <= range.high)
    fits = builder.add(ByteAutomaton::kStart, std::max(range.low, Wide{0}), range.high);
  if (fits && range.low < 0 && range.low <= range.high)
    fits = builder.add(builder.add_minus(), std::max(-range.high, Wide{1}), -range.low);
  if (!fits) return fail(Code::kUnimplemented, "the numbers within these bounds need more than {} states", kMaxStates);
  return builder.build();
}

}  // namespace chiasm
