// Any text is refused or a URL that can be written into a request and read back as the same; any text is an address of
// the public internet, of this machine, or neither, never both.
#include <cstdint>
#include <string>
#include <string_view>

#include "expect.h"
#include "http/client.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace chiasm;
  using fuzz::expect;
  const std::string_view text(reinterpret_cast<const char*>(data), size);

  expect(!is_public_address(text) || !is_loopback_address(text));
  // A public address is one character by character: digits, dots, colons.
  if (is_public_address(text)) expect(text.find_first_not_of("0123456789abcdefABCDEF.:") == std::string_view::npos);

  const auto url = Url::parse(text);
  if (!url) {
    expect(url.error().code == Code::kInvalidArgument);
    return 0;
  }
  expect(url->scheme == "http" || url->scheme == "https");
  expect(!url->host.empty() && url->port != 0 && url->target.starts_with('/'));
  for (const char c : url->host + url->target) expect(c > ' ' && c < 0x7f);
  expect(url->host.find_first_of("/?#@\\[]%") == std::string::npos);
  const auto again = Url::parse(url->origin() + url->target);
  expect(again && again->host == url->host && again->port == url->port && again->target == url->target);
  (void)is_public_address(url->host);
  return 0;
}
