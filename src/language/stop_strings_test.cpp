#include "language/stop_strings.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/test_support.h"
#include "language/answer_text.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

TEST(StopStringsTest, TextEndsBeforeTheStopHoweverItIsCut) {
  StopStrings whole({"END"});
  EXPECT_EQ(whole.push("one END two"), "one ");
  EXPECT_EQ(whole.matched(), "END");
  EXPECT_EQ(whole.push("more"), "");

  StopStrings cut({"END"});
  EXPECT_EQ(cut.push("one E"), "one ");  // may be the beginning of one
  EXPECT_EQ(cut.push("N"), "");
  EXPECT_EQ(cut.push("E"), "EN");
  EXPECT_EQ(cut.push("ND"), "");
  EXPECT_EQ(cut.matched(), "END");
}

TEST(StopStringsTest, WhatWasHeldBackComesInTheEnd) {
  StopStrings stop({"\n\n", "###"});
  EXPECT_EQ(stop.push("a\n"), "a");
  EXPECT_EQ(stop.push("b##"), "\nb");
  EXPECT_EQ(stop.finish(), "##");
  EXPECT_FALSE(stop.matched());
}

TEST(StopStringsTest, TheFirstToBeCompleteWinsAndOfThoseTheLongest) {
  StopStrings stop({"bc", "abcd", "abc"});
  EXPECT_EQ(stop.push("xabcd"), "x");
  EXPECT_EQ(stop.matched(), "abc");
}

TEST(StopStringsTest, CharactersOfSeveralBytesStayWhole) {
  StopStrings stop({"。\n", "树木"});
  EXPECT_EQ(stop.push("有三棵树"), "有三棵");
  EXPECT_EQ(stop.push("。"), "树");
  EXPECT_EQ(stop.push("树"), "。");
  EXPECT_EQ(stop.push("木"), "");
  EXPECT_EQ(stop.matched(), "树木");
}

TEST(StopStringsTest, BadOnesAreNamed) {
  EXPECT_TRUE(check_stop_strings({"a", "树"}));
  for (const std::vector<std::string>& bad :
       {std::vector<std::string>{""}, {std::string(5000, 'a')}, {"\xFF"}, std::vector<std::string>(65, "a")})
    EXPECT_THAT(check_stop_strings(bad).error().message, HasSubstr("stop: expected"));
}

// Against the definition, over texts in which much repeats.
TEST(StopStringsTest, AnyCutGivesTheSameAndOnlyWholeCharacters) {
  const std::vector<std::string> alphabet{"a", "b", "é", "树", "木"};
  std::mt19937 random(3);
  const auto word = [&](std::size_t size) {
    std::string out;
    for (std::size_t i = 0; i < size; ++i) out += alphabet[random() % alphabet.size()];
    return out;
  };
  int matches = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stop;
    for (std::size_t i = 0, n = 1 + random() % 3; i < n; ++i) stop.push_back(word(1 + random() % 4));
    std::vector<std::string> pieces;
    std::string text;
    for (std::size_t i = 0; i < 12; ++i) text += pieces.emplace_back(word(random() % 4));
    std::optional<std::size_t> begin, end;
    for (const std::string& one : stop) {
      const std::size_t at = text.find(one);
      if (at == std::string::npos) continue;
      if (!end || at + one.size() < *end || (at + one.size() == *end && at < *begin)) begin = at, end = at + one.size();
    }
    StopStrings matcher(stop);
    std::string out;
    for (const std::string& piece : pieces) {
      const std::string safe = matcher.push(piece);
      ASSERT_TRUE(is_utf8(safe));
      out += safe;
    }
    EXPECT_EQ(matcher.matched().has_value(), begin.has_value());
    if (!matcher.matched()) out += matcher.finish();
    ASSERT_EQ(out, begin ? text.substr(0, *begin) : text);
    matches += begin ? 1 : 0;
  }
  EXPECT_GT(matches, 1000);
}

TEST(StopStringsTest, TokensThatSplitACharacterAreNoHindrance) {
  const Tokenizer tokenizer = must(Tokenizer::load(toytown_dir()));
  const std::string text = "x树y树木z";
  AnswerText answer(tokenizer, {"树木"});
  std::string shown;
  for (const char byte : text) shown += answer.push(*tokenizer.token_to_id({&byte, 1}), true);  // a token a byte
  EXPECT_EQ(shown, "x树y");
  EXPECT_EQ(answer.text(), shown);
  EXPECT_EQ(answer.stopped_by(), "树木");

  AnswerText late(tokenizer, {"x"});
  EXPECT_EQ(late.push(*tokenizer.token_to_id("x"), false), "x");  // not looked for yet
  EXPECT_EQ(late.push(*tokenizer.token_to_id("x"), true), "");
  EXPECT_EQ(late.stopped_by(), "x");
}

}  // namespace
}  // namespace chiasm
