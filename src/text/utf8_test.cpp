#include "text/utf8.h"

#include <array>
#include <chrono>
#include <tuple>

#include <gtest/gtest.h>
#include <utf8proc.h>

namespace chiasm {
namespace {

std::string utf8(std::initializer_list<std::int32_t> codes) {
  std::string out;
  for (const auto code : codes) append_utf8(code, out);
  return out;
}

TEST(Utf8, EveryCodePointRoundTrips) {
  for (std::int32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    const std::string text = utf8({code});
    const Utf8Step step = next_utf8(text);
    ASSERT_EQ(step.code, code);
    ASSERT_EQ(step.length, text.size());
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Step part = next_utf8(text.substr(0, cut));
      ASSERT_EQ(part.code, Utf8Step::kIncomplete);
      ASSERT_EQ(part.length, cut);
    }
  }
}

// The examples of the Unicode Standard, section 3.9, tables 3-8 to 3-11, and neighbours.
TEST(Utf8, EachMaximalSubpartBecomesOneReplacement) {
  const std::array<std::tuple<std::string_view, std::string_view>, 12> cases = {{
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
      {"\xE4\xB8", "?"},
      {"\xF0\x9F\x99", "?"},
      {"\xF0\x9F\x99\x41", "?A"},
      {"ab\xFF", "ab?"},
      {"\x80", "?"},
      {"\xC3\xC3\xA9", "?\xC3\xA9"},
      {"", ""},
      {"plain", "plain"},
  }};
  for (const auto& [bytes, pattern] : cases) {
    std::string expected;
    for (const char c : pattern) expected += c == '?' ? std::string(kReplacementCharacter) : std::string(1, c);
    EXPECT_EQ(repair_utf8(bytes), expected) << testing::PrintToString(bytes);
    EXPECT_EQ(is_utf8(bytes), expected == bytes);
    EXPECT_TRUE(is_utf8(expected));
  }
}

TEST(Utf8, IllFormedAfterLongAsciiIsFound) {
  for (std::size_t at = 0; at < 20; ++at) {
    std::string text(20, 'x');
    EXPECT_TRUE(is_utf8(text));
    text[at] = '\x80';
    EXPECT_FALSE(is_utf8(text));
  }
}

TEST(Nfc, Composes) {
  EXPECT_EQ(to_nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(to_nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(to_nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(to_nfc("\u212b\u2126"), "\u00c5\u03a9");
  EXPECT_EQ(to_nfc("\u304b\u3099"), "\u304c");
  EXPECT_EQ(to_nfc("a\u0301\u0323"), "\u1ea1\u0301");               // marks are put in order first
  EXPECT_EQ(to_nfc("a\u0301\u0302"), "\u00e1\u0302");               // equal classes stay in order
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093c");                      // excluded from composition
  EXPECT_EQ(to_nfc("\u0301 plain \ufb01"), "\u0301 plain \ufb01");  // compatibility forms stay
  EXPECT_EQ(to_nfc(""), "");
}

// Against utf8proc's own ordering, on text short enough for it.
TEST(Nfc, EqualsUtf8proc) {
  std::uint32_t state = 1;
  const auto random = [&](std::uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  };
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    const auto length = 1 + random(12);
    for (std::uint32_t i = 0; i < length; ++i) {
      switch (random(4)) {
        case 0: append_utf8(static_cast<std::int32_t>('a' + random(26)), text); break;
        case 1: append_utf8(static_cast<std::int32_t>(0x300 + random(0x70)), text); break;
        case 2: append_utf8(static_cast<std::int32_t>(0x1100 + random(0x100)), text); break;
        default: append_utf8(static_cast<std::int32_t>(0x600 + random(0x900)), text); break;
      }
    }
    auto* theirs = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
    ASSERT_NE(theirs, nullptr);
    EXPECT_EQ(to_nfc(text), reinterpret_cast<const char*>(theirs)) << testing::PrintToString(text);
    std::free(theirs);
    EXPECT_TRUE(!is_surely_nfc(text) || to_nfc(text) == text) << testing::PrintToString(text);
  }
}

// What is_surely_nfc passes by must be left alone by NFC, after any character that composes.
TEST(Nfc, PlainCharactersAreUntouched) {
  int plain = 0;
  for (std::int32_t code = 0; code < 0x20000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    const std::string text = utf8({code});
    if (!is_surely_nfc(text)) continue;
    ++plain;
    EXPECT_EQ(utf8proc_get_property(code)->combining_class, 0) << code;
    for (const std::int32_t before : {0x61, 0x1100, 0xAC00, 0x304B, 0x09C7, 0x0B92}) {
      const std::string both = utf8({before}) + text;
      ASSERT_EQ(to_nfc(both), both) << before << ' ' << code;
    }
  }
  EXPECT_GT(plain, 35000);
  EXPECT_FALSE(is_surely_nfc("e\u0301"));
  EXPECT_FALSE(is_surely_nfc("\uac00\u11a8"));
  EXPECT_FALSE(is_surely_nfc("\u304b\u3099"));
  EXPECT_FALSE(is_surely_nfc("\u2000"));
}

TEST(Nfc, LongRunOfMarksIsNotQuadratic) {
  std::string text = "e";
  std::string expected = "\u1eb9";  // e with dot below
  for (int i = 0; i < 200000; ++i) text += "\u0301\u0323";
  for (int i = 1; i < 200000; ++i) expected += "\u0323";
  for (int i = 0; i < 200000; ++i) expected += "\u0301";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(to_nfc(text) == expected);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace chiasm
