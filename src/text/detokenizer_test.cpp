#include "text/detokenizer.h"

#include <random>

#include <gtest/gtest.h>

#include "text/test_tokenizer.h"
#include "text/utf8.h"

namespace chiasm {
namespace {

std::int32_t byte_token(unsigned char byte) {
  const char c = static_cast<char>(byte);
  return toytown_tokenizer().token_to_id({&c, 1}).value();
}

TEST(Detokenizer, HoldsACharacterBackUntilItIsWhole) {
  Detokenizer detokenizer(toytown_tokenizer());
  EXPECT_EQ(detokenizer.push(byte_token('a')), "a");
  EXPECT_EQ(detokenizer.push(byte_token(0xF0)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x9F)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x99)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x82)), "\U0001F642");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, WhatCanBeNoCharacterIsReplacedAtOnce) {
  Detokenizer detokenizer(toytown_tokenizer());
  EXPECT_EQ(detokenizer.push(byte_token(0x80)), "\uFFFD");
  EXPECT_EQ(detokenizer.push(byte_token(0xE4)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0xB8)), "");
  EXPECT_EQ(detokenizer.push(byte_token('x')), "\uFFFDx");
  EXPECT_EQ(detokenizer.push(byte_token(0xE4)), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.finish(), "");
  EXPECT_EQ(detokenizer.push(byte_token('y')), "y");
}

TEST(Detokenizer, SpecialTokens) {
  const Tokenizer& tokenizer = toytown_tokenizer();
  const std::int32_t end = tokenizer.token_to_id("<|im_end|>").value();
  // A special token between the bytes of a character leaves no trace when skipped.
  const std::vector<std::int32_t> ids = {byte_token(0xC3), end, byte_token(0xA9)};
  EXPECT_EQ(decode(tokenizer, ids), "\u00e9");
  EXPECT_EQ(decode(tokenizer, ids, Detokenizer::Special::kKeep), "\uFFFD<|im_end|>\uFFFD");
}

TEST(Detokenizer, IdsWithoutATokenAddNothing) {
  EXPECT_EQ(decode(toytown_tokenizer(), std::vector<std::int32_t>{-1, byte_token('a'), 1 << 30, 913}), "a");
}

TEST(Detokenizer, ToytownVectors) {
  const Json vectors = load_json(source_dir() / "tests/data/text/decode.json");
  int count = 0;
  for (const JsonValue row : must(vectors.root().elements())) {
    const auto expected = must(must(row.at("text")).string());
    const auto ids = integers<std::int32_t>(must(row.at("ids")));
    EXPECT_EQ(decode(toytown_tokenizer(), ids), expected);
    ++count;
  }
  EXPECT_GE(count, 100);
}

TEST(Detokenizer, EveryPieceIsWholeCharacters) {
  const Tokenizer& tokenizer = toytown_tokenizer();
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    Detokenizer detokenizer(tokenizer, Detokenizer::Special::kKeep);
    std::string bytes;
    std::string text;
    for (std::size_t i = 0; i < 1 + random() % 20; ++i) {
      // Bytes that begin and continue characters, mostly; now and then any token.
      const std::int32_t id = random() % 4 == 0 ? static_cast<std::int32_t>(random() % 913)
                                                : byte_token(static_cast<unsigned char>(0x80 + random() % 0x80));
      bytes += tokenizer.token_bytes(id);
      const std::string piece = detokenizer.push(id);
      EXPECT_TRUE(is_utf8(piece));
      text += piece;
    }
    EXPECT_EQ(text + detokenizer.finish(), repair_utf8(bytes));
  }
}

}  // namespace
}  // namespace chiasm
