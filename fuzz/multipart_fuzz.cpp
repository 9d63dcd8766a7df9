// Input: the Content-Type up to the first line end, then the body. Any of it is refused or parts that lie in the body,
// one after another, none of which holds its own delimiter.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "expect.h"
#include "http/multipart.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view body = text.substr(std::min(end + 1, text.size()));
  constexpr std::size_t kMaxParts = 8;
  const auto parts = parse_multipart(text.substr(0, end), body, kMaxParts);
  if (!parts) {
    expect(parts.error().code == Code::kInvalidArgument && !parts.error().message.empty());
    return 0;
  }
  expect(parts->size() <= kMaxParts);
  const char* at = body.data();
  for (const FormPart& part : *parts) {
    expect(!part.name.empty());
    if (part.bytes.empty()) continue;
    expect(part.bytes.data() > at && part.bytes.data() + part.bytes.size() < body.data() + body.size());
    at = part.bytes.data() + part.bytes.size();
  }
  return 0;
}
