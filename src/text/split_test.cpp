#include "text/split.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/utf8.h"

namespace chiasm {
namespace {

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t length = qwen2_piece(text);
    EXPECT_GT(length, 0U);
    EXPECT_LE(length, text.size());
    out.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return out;
}

using Pieces = std::vector<std::string>;

TEST(Split, Examples) {
  EXPECT_EQ(pieces(""), Pieces{});
  EXPECT_EQ(pieces("Hello world"), (Pieces{"Hello", " world"}));
  EXPECT_EQ(pieces("I'm HE'LL x'y"), (Pieces{"I", "'m", " HE", "'LL", " x", "'y"}));
  EXPECT_EQ(pieces("it'\u017f"), (Pieces{"it", "'\u017f"}));
  EXPECT_EQ(pieces("'red 'rx"), (Pieces{"'re", "d", " '", "rx"}));
  EXPECT_EQ(pieces("a  b   "), (Pieces{"a", " ", " b", "   "}));
  EXPECT_EQ(pieces("12 3"), (Pieces{"1", "2", " ", "3"}));
  EXPECT_EQ(pieces("x \n y"), (Pieces{"x", " \n", " y"}));
  EXPECT_EQ(pieces("a!?\r\n\nb"), (Pieces{"a", "!?\r\n\n", "b"}));
  EXPECT_EQ(pieces(" !!"), (Pieces{" !!"}));
  EXPECT_EQ(pieces("\t!"), (Pieces{"\t", "!"}));
  EXPECT_EQ(pieces("\tword"), (Pieces{"\tword"}));
  EXPECT_EQ(pieces("\nword"), (Pieces{"\n", "word"}));
  EXPECT_EQ(pieces("有几座房子?"), (Pieces{"有几座房子", "?"}));
  EXPECT_EQ(pieces("<|im_end|>"), (Pieces{"<|", "im", "_end", "|>"}));
}

TEST(Split, WhiteSpaceIsAsInOniguruma) {
  EXPECT_EQ(pieces("a\u0085\u0085b"), (Pieces{"a", "\u0085", "\u0085b"}));
  EXPECT_EQ(pieces("!\u180e!"), (Pieces{"!\u180e!"}));  // no white space since Unicode 6.3; PCRE2 still says so
  EXPECT_EQ(pieces("\u3000\u3000!"), (Pieces{"\u3000", "\u3000", "!"}));
  EXPECT_EQ(pieces("\u200b\u200b"), (Pieces{"\u200b\u200b"}));
}

class Regex {
 public:
  Regex() {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(qwen2_pattern().data()), qwen2_pattern().size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
    EXPECT_NE(code_, nullptr);
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
    match_ = pcre2_match_data_create_from_pattern(code_, nullptr);
  }
  ~Regex() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  Pieces split(const std::string& text) const {
    Pieces out;
    for (std::size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, 0, match_, nullptr);
      EXPECT_GT(found, 0);
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match_);
      EXPECT_EQ(range[0], at);  // the pattern matches everywhere
      if (found <= 0 || range[0] != at || range[1] <= at) break;
      out.push_back(text.substr(at, range[1] - at));
      at = range[1];
    }
    return out;
  }

 private:
  pcre2_code* code_ = nullptr;
  pcre2_match_data* match_ = nullptr;
};

TEST(Split, EqualsThePatternInPcre2) {
  const Regex regex;
  const std::vector<std::string> parts = {
      " ",      " ",      " ",      "\t",   "\n",     "\r",     "\r\n",   "\v",     "\f", "\u0085", "\u00a0",
      "\u2028", "\u3000", "'",      "'",    "s",      "S",      "t",      "T",      "re", "RE",     "vE",
      "m",      "ll",     "Ll",     "d",    "l",      "r",      "v",      "\u017f", "a",  "Z",      "é",
      "中",     "文",     "가",     "ʰ",    "ǅ",      "1",      "9",      "٣",      "½",  "Ⅷ",      "①",
      "!",      "?",      ".",      "<",    "|",      ">",      "_",      "-",      "🙂", "\u0301", "\u200b",
      "\u200d", "\u20ac", "\ufffd", "\x01", "\u0903", "\ue000", "\u1680", "\u2019"};
  std::mt19937 random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    const auto length = 1 + random() % 14;
    for (std::size_t i = 0; i < length; ++i) text += parts[random() % parts.size()];
    ASSERT_EQ(pieces(text), regex.split(text)) << testing::PrintToString(text);
  }
}

// Each character of the Basic Multilingual Plane that both libraries know, in the places where its class shows.
TEST(Split, EveryCharacterHasPcre2sClass) {
  const Regex regex;
  for (std::int32_t code = 0; code < 0x10000; ++code) {
    if ((code >= 0xD800 && code < 0xE000) || code == 0x180E) continue;
    std::string c;
    append_utf8(code, c);
    const std::string text = fmt::format("a{0}b {0}{0} 1{0}!{0}", c);
    ASSERT_EQ(pieces(text), regex.split(text)) << std::hex << code;
  }
}

}  // namespace
}  // namespace chiasm
