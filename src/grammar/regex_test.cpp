#include "grammar/regex.h"

#include <random>
#include <regex>

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "grammar/formats.h"
#include "grammar/json_text.h"
#include "text/utf8.h"

namespace chiasm {
namespace {

ByteAutomaton strings(const std::string& pattern) {
  WorkBudget budget;
  const auto characters = regex_automaton(pattern, budget);
  if (!characters) ADD_FAILURE() << pattern << ": " << characters.error().message;
  const auto out = must(string_automaton(*characters, budget));
  return out ? *out : ByteAutomaton();  // which no string matches
}

// The standard library's ECMAScript as the second opinion, on random texts over few letters.
TEST(Regex, AgreesWithAnotherEngine) {
  std::mt19937_64 random(5);
  for (const char* pattern : {"a",
                              "^a",
                              "a$",
                              "^a$",
                              "",
                              "^$",
                              "a*",
                              "^a*$",
                              "^(ab)+$",
                              "a|b",
                              "^(a|bc)*$",
                              "^a?b$",
                              "^a{2}$",
                              "^a{2,}b$",
                              "^a{0,2}$",
                              "^[ab]+$",
                              "^[^a]*$",
                              "^[a-c]{1,3}$",
                              "^.b$",
                              "^\\w+$",
                              "\\d",
                              "^\\D*$",
                              "^\\s*a",
                              "^(?:a|b)c$",
                              "^a+?b",
                              "(^a|b$)",
                              "^(a|ab)(c|bcd)*$",
                              "^((a)(b)?)+$",
                              "a^b",
                              "^(a$|b)",
                              "[]a]?b|c",
                              "^[a\\-c]+$",
                              "^\\.$",
                              "^(a|)+$",
                              "^(a*)*b$"}) {
    if (std::string(pattern).find("[]") != std::string::npos) continue;  // an empty class there, not everywhere
    const std::regex other(pattern);
    const ByteAutomaton automaton = strings(pattern);
    for (int i = 0; i < 500; ++i) {
      std::string text;
      for (std::uint64_t length = random() % 7; length > 0; --length) text += "abcd 1.-"[random() % 8];
      ASSERT_EQ(automaton.matches(quote_json(text)), std::regex_search(text, other))
          << pattern << " on '" << text << "'";
    }
  }
}

TEST(Regex, CharactersAreCodePoints) {
  EXPECT_TRUE(strings("^.{2}$").matches("\"\xF0\x9F\x98\x80\xE6\x97\xA5\""));
  EXPECT_FALSE(strings("^.$").matches("\"\\n\""));
  EXPECT_TRUE(strings("^[^a]$").matches("\"\\n\""));
  EXPECT_TRUE(strings("^[\\u00e0-\\u00ff]+$").matches("\"\xC3\xA9\xC3\xBC\""));
  EXPECT_TRUE(strings("^\\u{1F600}$").matches("\"\xF0\x9F\x98\x80\""));
  EXPECT_TRUE(strings("^\\ud83d\\ude00$").matches("\"\xF0\x9F\x98\x80\""));
  EXPECT_TRUE(strings("^\xE6\x97\xA5+$").matches("\"\xE6\x97\xA5\xE6\x97\xA5\""));
  EXPECT_TRUE(strings("^\\x41\\cA\\0\\t$").matches(R"("A\u0001\u0000\t")"));
  EXPECT_TRUE(strings("^[\\b\\]\\\\]+$").matches(R"("\b]\\")"));
  EXPECT_FALSE(strings("^.*$").matches("\"\xED\xA0\x80\""));      // a surrogate
  EXPECT_FALSE(strings("^.*$").matches("\"\xC0\x80\""));          // an overlong form
  EXPECT_FALSE(strings("^.*$").matches("\"\xF4\x90\x80\x80\""));  // beyond Unicode
}

// Any character has exactly the spelling that quote_json gives it.
TEST(Regex, SpellsAsQuoteJson) {
  const ByteAutomaton any = strings("^[^]$");
  for (const char32_t code :
       {0x0, 0x8, 0x1F, 0x22, 0x2F, 0x5C, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF}) {
    std::string text;
    append_utf8(static_cast<std::int32_t>(code), text);
    EXPECT_TRUE(any.matches(quote_json(text))) << static_cast<unsigned>(code);
  }
  EXPECT_FALSE(any.matches(R"("\/")"));
  EXPECT_FALSE(any.matches(R"("\u0041")"));
  EXPECT_FALSE(any.matches("\"\n\""));
  EXPECT_FALSE(any.matches("\"\"\""));
}

TEST(Regex, Lengths) {
  WorkBudget budget;
  const auto both = intersect(must(regex_automaton("^(ab)*$", budget)), must(length_automaton(3, 5, budget)), budget);
  const auto automaton = must(string_automaton(must(both), budget));
  ASSERT_TRUE(automaton);
  EXPECT_TRUE(automaton->matches("\"abab\""));
  for (const char* text : {"\"\"", "\"ab\"", "\"ababab\"", "\"aba\""}) EXPECT_FALSE(automaton->matches(text));
  const auto none = intersect(must(regex_automaton("^a$", budget)), must(length_automaton(2, -1, budget)), budget);
  EXPECT_FALSE(must(string_automaton(must(none), budget)));
}

TEST(Regex, Refusals) {
  const auto code = [](const std::string& pattern) {
    WorkBudget budget;
    const auto result = regex_automaton(pattern, budget);
    return result ? std::optional<Code>() : std::optional(result.error().code);
  };
  for (const char* wrong : {"(", ")", "a**", "*", "[a", "[b-a]", "a{2,1}", "a{", "a{x}", "\\", "(?a)", "\\q", "\\ud800",
                            "\\x4", "]", "}", "^*", "\\00"})
    EXPECT_EQ(code(wrong), Code::kInvalidArgument) << wrong;
  for (const char* unsupported :
       {"(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "\\bword", "(a)\\1", "\\p{L}", "\\k<a>", "a{5000}", "^(a{100}){100}$",
        "^.*a.{14}$", "(((((((((a{9}){9}){9}){9}){9}){9}){9}){9}){9}){9}"})
    EXPECT_EQ(code(unsupported), Code::kUnimplemented) << unsupported;
  EXPECT_EQ(code(std::string(100, '(') + std::string(100, ')')), Code::kUnimplemented);
}

TEST(Formats, ArePatterns) {
  for (const char* format : {"date", "time", "date-time", "duration", "uuid", "email", "hostname", "ipv4", "ipv6"}) {
    const auto pattern = format_pattern(format);
    ASSERT_TRUE(pattern) << format;
    strings(*pattern);
  }
  EXPECT_FALSE(format_pattern("uri"));
}

}  // namespace
}  // namespace chiasm
