// Token ids back to text as they come: what is given out is always whole UTF-8 characters.
//
// All pieces put together equal the Hugging Face byte-level decoder's text for the same ids (errors="replace").
// Thread contract: one thread a Detokenizer; the Tokenizer must outlive it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer.h"

namespace chiasm {

class Detokenizer {
 public:
  enum class Special : std::uint8_t { kSkip, kKeep };

  explicit Detokenizer(const Tokenizer& tokenizer, Special special = Special::kSkip);

  // The characters that this token completes; often none, for a character of several tokens. Bytes that can be part of
  // no character become U+FFFD. An id that names no token adds nothing.
  std::string push(std::int32_t id);

  // U+FFFD when the text ended inside a character, else nothing. Ready for another text afterwards.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  Special special_;
  std::string pending_;  // the beginning of a character, at most 3 bytes
};

// All ids at once.
std::string decode(const Tokenizer& tokenizer, std::span<const std::int32_t> ids,
                   Detokenizer::Special special = Detokenizer::Special::kSkip);

}  // namespace chiasm
