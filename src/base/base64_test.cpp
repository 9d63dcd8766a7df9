#include "base/base64.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::HasSubstr;

std::string encoded(std::string_view bytes) { return encode_base64(std::as_bytes(std::span(bytes))); }

std::string error_of(std::string_view text) {
  const auto decoded = decode_base64(text);
  if (decoded) return "decoded";
  EXPECT_EQ(decoded.error().code, Code::kInvalidArgument);
  return decoded.error().message;
}

TEST(Base64, TheVectorsOfRfc4648) {
  const std::pair<std::string_view, std::string_view> vectors[] = {{"", ""},
                                                                   {"f", "Zg=="},
                                                                   {"fo", "Zm8="},
                                                                   {"foo", "Zm9v"},
                                                                   {"foob", "Zm9vYg=="},
                                                                   {"fooba", "Zm9vYmE="},
                                                                   {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : vectors) {
    EXPECT_EQ(encoded(bytes), text);
    EXPECT_EQ(decode_base64(text).value(), bytes);
    EXPECT_EQ(decode_base64(text.substr(0, text.find('='))).value(), bytes) << "padding may be absent";
  }
}

TEST(Base64, EveryLengthAndByteComesBack) {
  std::mt19937 random(7);
  for (std::size_t size = 0; size < 200; ++size) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_EQ(decode_base64(encoded(bytes)).value(), bytes) << size;
  }
  std::string all(256, '\0');
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i);
  EXPECT_EQ(decode_base64(encoded(all)).value(), all);
}

TEST(Base64, TakesTheAlphabetOfUrlsToo) {
  EXPECT_EQ(decode_base64("-_-_").value(), decode_base64("+/+/").value());
  EXPECT_EQ(decode_base64("+_-/").value(), decode_base64("+/+/").value());
  EXPECT_EQ(decode_base64("-w").value(), "\xFB");
}

TEST(Base64, RefusesWhatIsNoLetterAndSaysWhere) {
  EXPECT_EQ(error_of("AAAA%2BAA"), "base64: expected A-Z, a-z, 0-9, '+' or '/' at character 4, got '%'");
  EXPECT_THAT(error_of("AAA\n"), HasSubstr("character 3, got byte 0x0A"));
  EXPECT_THAT(error_of("AAAA\r\nAAAA"), HasSubstr("character 4, got byte 0x0D"));
  EXPECT_THAT(error_of(" AAA"), HasSubstr("character 0, got byte 0x20"));
  EXPECT_THAT(error_of(std::string_view("AA\0A", 4)), HasSubstr("character 2, got byte 0x00"));
  EXPECT_THAT(error_of("A\xC3\xA9"
                       "A"),
              HasSubstr("character 1, got byte 0xC3"));
  EXPECT_THAT(error_of("Zg==Zg=="), HasSubstr("character 2, got '='"));
  EXPECT_THAT(error_of("A==="), HasSubstr("character 1, got '='"));
  EXPECT_THAT(error_of("===="), HasSubstr("character 0, got '='"));
  // At every place of a long text, whichever loop reads it.
  const std::string good(100, 'A');
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string text = good;
    text[at] = '!';
    EXPECT_THAT(error_of(text), HasSubstr("character " + std::to_string(at) + ", got '!'"));
  }
}

TEST(Base64, RefusesBrokenEnds) {
  EXPECT_EQ(error_of("AAAAA"), "base64: it ends in the middle of a byte: 5 characters without padding");
  EXPECT_THAT(error_of("A="), HasSubstr("in the middle of a byte"));
  EXPECT_EQ(error_of("Zg="), "base64: expected 2 '=' at the end of 3 characters, got 1");
  EXPECT_THAT(error_of("Zm8=="), HasSubstr("expected 1 '='"));
  EXPECT_THAT(error_of("Zm9v="), HasSubstr("expected 0 '='"));
  EXPECT_THAT(error_of("Zm9v=="), HasSubstr("expected 0 '='"));
  EXPECT_THAT(error_of("="), HasSubstr("expected 0 '='"));
  // Zh== would say the same byte as Zg==.
  EXPECT_EQ(error_of("Zh=="), "base64: expected zero bits behind the last byte, got 'h' at character 1");
  EXPECT_THAT(error_of("Zm9vZh"), HasSubstr("got 'h' at character 5"));
  EXPECT_THAT(error_of("Zm9="), HasSubstr("got '9' at character 2"));
}

}  // namespace
}  // namespace chiasm
