// Any text is either refused or the one spelling of its bytes, up to padding and the two alphabets.
#include <cstdint>
#include <span>
#include <string>

#include "base/base64.h"
#include "expect.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto decoded = decode_base64(text)) {
    std::string plain(text);
    for (char& c : plain) c = c == '-' ? '+' : c == '_' ? '/' : c;
    while (plain.size() % 4 != 0) plain += '=';
    expect(encode_base64(std::as_bytes(std::span(*decoded))) == plain);
  } else {
    expect(decoded.error().code == Code::kInvalidArgument);
  }
  // And any bytes come back.
  const auto bytes = std::as_bytes(std::span(data, size));
  expect(decode_base64(encode_base64(bytes)).value() == text);
  return 0;
}
