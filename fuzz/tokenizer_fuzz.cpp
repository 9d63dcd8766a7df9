// Arbitrary bytes as a tokenizer.json, and as text for the demo model's tokenizer, which must come back as its normal
// form. The first byte chooses.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/check.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using chiasm::Tokenizer;

const Tokenizer& demo() {
  static const Tokenizer tokenizer = [] {
    auto loaded = Tokenizer::load(std::string(CHIASM_SOURCE_DIR) + "/models/toytown");
    if (!loaded) {
      std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
      std::abort();
    }
    return *std::move(loaded);
  }();
  return tokenizer;
}

void round_trip(const Tokenizer& tokenizer, std::string_view text, bool nfc) {
  const auto ids = tokenizer.encode(text);
  for (const auto id : ids) CHECK(!tokenizer.is_added(id) && !tokenizer.token_bytes(id).empty());
  const std::string repaired = chiasm::repair_utf8(text);
  CHECK(chiasm::decode(tokenizer, ids) == (nfc ? chiasm::to_nfc(repaired) : repaired));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    round_trip(demo(), input, true);
  } else if (const auto parsed = Tokenizer::parse(input, "input"); parsed) {
    const std::string text = "The text, 有几座房子? <|im_end|> e\u0301 " + std::string(input.substr(0, 64));
    const auto ids = parsed->encode(text);
    for (const auto id : ids) CHECK(!parsed->is_added(id));
    CHECK(chiasm::is_utf8(chiasm::decode(*parsed, ids)));
  } else {
    CHECK(parsed.error().message.starts_with("input: "));
  }
  return 0;
}
