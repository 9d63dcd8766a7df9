#include "base/digest.h"

#include <string>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// Vectors made with Python's hashlib.blake2b, cut to 32 bytes; the first is also RFC 7693's.
TEST(Digest, IsBlake2b512CutTo256Bits) {
  EXPECT_EQ(digest_of(bytes_of("abc")).hex(), "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1");
  EXPECT_EQ(digest_of({}).hex(), "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419");
}

TEST(Digest, FramingIsTypeNameLengthBytes) {
  Hasher hasher;
  hasher.add("n", std::string_view("ab")).add("k", std::int64_t{-5}).add("x", 1.5);
  EXPECT_EQ(hasher.finish().hex(), "46b60754dff2ce927b982791183d4ac5636abcc67d5945c1cffa8097227bd606");
}

TEST(Digest, FieldsDoNotRunIntoEachOther) {
  const auto two = [](std::string_view a, std::string_view b) { return Hasher().add("f", a).add("f", b).finish(); };
  EXPECT_NE(two("ab", "c"), two("a", "bc"));
  EXPECT_NE(two("", "abc"), two("abc", ""));
  EXPECT_NE(Hasher().add("ab", std::string_view("c")).finish(), Hasher().add("a", std::string_view("bc")).finish());
  EXPECT_NE(Hasher().add("f", std::string_view("x")).finish(), Hasher().add("f", bytes_of("x")).finish());
  EXPECT_NE(Hasher().add("f", std::int64_t{1}).finish(), Hasher().add("f", 1.0).finish());
  EXPECT_NE(Hasher().add("f", 0.0).finish(), Hasher().add("f", -0.0).finish());
  const Digest digest = digest_of(bytes_of("x"));
  EXPECT_NE(Hasher().add("f", digest).finish(), Hasher().add("f", std::as_bytes(std::span(digest.bytes))).finish());
}

TEST(Digest, PiecesEqualTheWhole) {
  const std::string text(100001, 'q');
  Hasher hasher;
  for (std::size_t at = 0; at < text.size(); at += 977) hasher.update(bytes_of(std::string_view(text).substr(at, 977)));
  EXPECT_EQ(hasher.finish(), digest_of(bytes_of(text)));
}

TEST(Digest, HexThereAndBack) {
  const Digest digest = digest_of(bytes_of("abc"));
  EXPECT_EQ(Digest::from_hex(digest.hex()).value(), digest);
  EXPECT_FALSE(Digest::from_hex(digest.hex().substr(1)));
  EXPECT_FALSE(Digest::from_hex(digest.hex() + "0"));
  std::string upper = digest.hex();
  upper[1] = 'A';
  EXPECT_FALSE(Digest::from_hex(upper));
  EXPECT_FALSE(Digest::from_hex(std::string(64, 'g')));
}

TEST(Digest, ChecksumIsXxh3) {
  EXPECT_EQ(checksum_of({}), 0x2D06800538D394C2U);  // XXH3_64bits of nothing, as published
  EXPECT_NE(checksum_of(bytes_of("a")), checksum_of(bytes_of("b")));
}

}  // namespace
}  // namespace chiasm
