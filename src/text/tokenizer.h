// Byte-level BPE, read from a Hugging Face tokenizer.json: text to token ids, and a token's bytes.
//
// Encodes ordinary text only. Special and other added tokens are never found in text, whatever it spells: the chat
// prompt (chat_prompt.h) names them by id. Bytes back to text is detokenizer.h's work.
// Thread contract: immutable after load; const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

class Tokenizer {
 public:
  // A tokenizer.json, or the folder that holds one. Supported: model BPE over the byte-level alphabet with all 256
  // byte tokens, normalizer NFC or null, the Qwen2 split pattern followed by ByteLevel, decoder ByteLevel; merges as
  // pairs or as "a b" strings. Anything else is refused with an error that names the file and the field.
  static Result<Tokenizer> load(const std::filesystem::path& dir_or_file);

  // `source` names the document in errors.
  static Result<Tokenizer> parse(std::string_view json, std::string source);

  // The ids of `text` as ordinary text: never an added token's id. "<|im_end|>" gives the ids of its characters; so
  // does an added token that is not special ("<tool_call>"), which Hugging Face would match in text. Bytes that are not
  // UTF-8 become U+FFFD, one for each maximal ill-formed part, as Python's errors="replace" does. Time is O(n log n) at
  // worst.
  // The ids equal those of Hugging Face's tokenizers, but for combining marks newer than Unicode 9, which its NFC does
  // not put in order.
  std::vector<std::int32_t> encode(std::string_view text) const;

  // The id of an added token by its content ("<|im_start|>"), or else of the base token with exactly these bytes.
  std::optional<std::int32_t> token_to_id(std::string_view token) const;

  // The bytes that a token stands for, which need not be whole UTF-8 characters; an added token's content. Empty for an
  // id that names no token (embedding tables have more rows than there are tokens). Valid as long as this Tokenizer
  // or one it was moved to lives.
  std::string_view token_bytes(std::int32_t id) const;

  bool is_special(std::int32_t id) const;  // an added token marked special
  bool is_added(std::int32_t id) const;    // any added token, special or not

  // One more than the largest id.
  std::int64_t size() const;

  // What names the file in errors.
  const std::string& source() const;

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  struct Data;
  explicit Tokenizer(std::unique_ptr<const Data> data);
  std::unique_ptr<const Data> data_;
};

}  // namespace chiasm
