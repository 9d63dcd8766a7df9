#include "grammar/number_automaton.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "base/test_support.h"

namespace chiasm {
namespace {

Decimal decimal(const std::string& text) {
  const auto out = Decimal::parse(text);
  EXPECT_TRUE(out) << text;
  return out.value_or(Decimal{});
}

ByteAutomaton build(const NumberRule& rule) {
  WorkBudget budget;
  const auto out = must(number_automaton(rule, budget));
  EXPECT_TRUE(out);
  return *out;
}

TEST(NumberAutomaton, IntegersAreExact) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    const std::int64_t span = std::vector<std::int64_t>{3, 40, 3000, 20'000}[random() % 4];
    std::int64_t low = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(span)) - span / 2;
    std::int64_t high = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(span)) - span / 2;
    if (low > high) std::swap(low, high);
    const std::int64_t step = random() % 3 == 0 ? 1 + static_cast<std::int64_t>(random() % 12) : 1;
    NumberRule rule{.integer = true, .low = decimal(std::to_string(low)), .high = decimal(std::to_string(high))};
    if (step > 1) rule.multiple_of = decimal(std::to_string(step));
    WorkBudget budget;
    const auto automaton = must(number_automaton(rule, budget));
    bool any = false;
    for (std::int64_t value = low - 200; value <= high + 200; ++value) {
      const bool expected = value >= low && value <= high && value % step == 0;
      any = any || expected;
      ASSERT_EQ(automaton && automaton->matches(std::to_string(value)), expected)
          << value << " in " << low << ".." << high << " by " << step;
      ASSERT_EQ(rule.allows(decimal(std::to_string(value))), expected);
    }
    EXPECT_EQ(automaton.has_value(), any);
    if (!automaton) continue;
    for (const char* wrong : {"-0", "00", "01", "-", "", "1.0", "1e1", "+1"})
      EXPECT_FALSE(automaton->matches(wrong)) << wrong;
  }
}

TEST(NumberAutomaton, FractionsAreExact) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 200; ++round) {
    const auto bound = [&] {
      return fmt::format("{:.{}f}", static_cast<double>(static_cast<int>(random() % 4000) - 2000) / 100, random() % 3);
    };
    NumberRule rule;
    if (random() % 4 != 0) rule.low = decimal(bound());
    if (random() % 4 != 0) rule.high = decimal(bound());
    rule.low_excluded = random() % 2 == 0;
    rule.high_excluded = random() % 2 == 0;
    if (rule.low && rule.high && compare(*rule.low, *rule.high) >= 0) continue;
    if (random() % 3 == 0)
      rule.multiple_of = decimal(std::vector<const char*>{"0.25", "0.1", "3", "1.5"}[random() % 4]);
    if (rule.is_free()) continue;
    WorkBudget budget;
    const auto automaton = must(number_automaton(rule, budget));
    for (int i = 0; i < 2000; ++i) {
      const int places = static_cast<int>(random() % 4);
      const std::string text =
          fmt::format("{:.{}f}", static_cast<double>(static_cast<int>(random() % 50'000) - 25'000) / 1000, places);
      if (rule.multiple_of && places > -rule.multiple_of->exponent) continue;  // not written
      if (text.starts_with('-') && text.find_first_of("123456789") == text.npos) continue;
      ASSERT_EQ(automaton && automaton->matches(text), rule.allows(decimal(text))) << text;
    }
  }
}

TEST(NumberAutomaton, FreeNumbers) {
  const ByteAutomaton number = build({});
  for (const char* good : {"0", "-0", "1", "-12.5", "1e5", "1.25E-07", "123456789012345", "0.000000000000001", "9e99"})
    EXPECT_TRUE(number.matches(good)) << good;
  for (const char* bad :
       {"", "-", "01", "1.", ".5", "1e", "1e+", "1e100", "+1", "1234567890123456", "0x1", "1.e1", "NaN"})
    EXPECT_FALSE(number.matches(bad)) << bad;
  const ByteAutomaton integer = build({.integer = true});
  EXPECT_TRUE(integer.matches("999999999999999999"));
  EXPECT_FALSE(integer.matches("1000000000000000000"));
  EXPECT_FALSE(integer.matches("-0"));
}

// No double equals an excluded bound: the digits are few enough. The lowest digits first come as near as can be.
TEST(NumberAutomaton, ExcludedBoundsAsDoubles) {
  std::mt19937_64 random(3);
  for (const char* bound : {"0.1", "0.30000000000000004", "1000000", "123456.789", "1e-5"}) {
    const ByteAutomaton above = build({.low = decimal(bound), .low_excluded = true});
    for (int round = 0; round < 2000; ++round) {
      std::string text;
      ByteAutomaton::State state = ByteAutomaton::kStart;
      while (!above.accepts(state) || (!above.is_final(state) && random() % 8 != 0)) {
        const auto edges = above.edges(state);
        const auto& edge = edges[random() % 2 == 0 ? 0 : random() % edges.size()];
        text += static_cast<char>(edge.low + (random() % 2 == 0 ? 0 : random() % (edge.high - edge.low + 1U)));
        state = above.next(state, static_cast<std::uint8_t>(text.back()));
      }
      ASSERT_GT(std::strtod(text.c_str(), nullptr), std::strtod(bound, nullptr)) << text;
    }
  }
}

TEST(NumberAutomaton, Refusals) {
  WorkBudget budget;
  EXPECT_FALSE(must(number_automaton({.low = decimal("5"), .high = decimal("4")}, budget)));
  EXPECT_FALSE(must(number_automaton({.integer = true, .low = decimal("0.2"), .high = decimal("0.8")}, budget)));
  EXPECT_EQ(number_automaton({.low = decimal("1e30")}, budget).error().code, Code::kUnimplemented);
  EXPECT_EQ(number_automaton({.integer = true, .multiple_of = decimal("1e10")}, budget).error().code,
            Code::kUnimplemented);
  EXPECT_EQ(number_automaton({.low = decimal("1e-20"), .high = decimal("2e-20")}, budget).error().code,
            Code::kUnimplemented);
  EXPECT_EQ(number_automaton({.integer = true, .multiple_of = decimal("99991")}, budget).error().code,
            Code::kUnimplemented);
  // An outer bound that no number reaches says nothing.
  EXPECT_TRUE(must(number_automaton({.integer = true, .low = decimal("-1e300"), .high = decimal("1e300")}, budget)));
}

TEST(Decimal, ReadsNumbers) {
  EXPECT_EQ(decimal("0"), (Decimal{0, 0}));
  EXPECT_EQ(decimal("-0.00"), (Decimal{0, 0}));
  EXPECT_EQ(decimal("-12.50"), (Decimal{-125, -1}));
  EXPECT_EQ(decimal("1e+20"), (Decimal{1, 20}));
  EXPECT_EQ(decimal("2500"), (Decimal{25, 2}));
  for (const char* wrong : {"1e", "1x", "12345678901234567890123", "1e99999"})
    EXPECT_FALSE(Decimal::parse(wrong)) << wrong;
  for (const auto& [a, b, order] : {std::tuple{"1", "2", -1},
                                    {"-1", "1", -1},
                                    {"0.1", "0.10", 0},
                                    {"1e5", "99999", 1},
                                    {"-1e5", "-99999", -1},
                                    {"0", "-0.5", 1},
                                    {"123456789012345678", "1.23e17", 1}})
    EXPECT_EQ(compare(decimal(a), decimal(b)), order) << a << ' ' << b;
}

}  // namespace
}  // namespace chiasm
