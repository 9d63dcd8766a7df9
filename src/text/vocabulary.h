// Which token has which bytes, and the byte-level alphabet that tokenizer.json writes them in.
//
// Thread contract: immutable once built.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chiasm {

// The byte-level alphabet (GPT-2, Radford et al. 2019): each byte is written as one printable character, so that a
// token of any bytes is valid text. Appends the bytes that `text` writes; false, and nothing appended, when it has a
// character that stands for no byte.
bool from_byte_alphabet(std::string_view text, std::string& bytes);

class Vocabulary {
 public:
  enum class Kind : std::uint8_t { kNone, kBase, kUnreachable, kAdded, kSpecial };

  // `size`: one more than the largest id.
  explicit Vocabulary(std::size_t size) : entries_(size) {}

  // An id must be in [0, size) and not be set before, except to go from a base token to an added one of the same bytes.
  // Tokens are found by their bytes if they are of kind kBase; kUnreachable ones are not.
  void set(std::int32_t id, std::string_view bytes, Kind kind);
  void mark(std::int32_t id, Kind kind) { entries_[static_cast<std::size_t>(id)].kind = kind; }
  // To be called once after all of them, before find. The ids of two base tokens with the same bytes, if there are.
  std::optional<std::pair<std::int32_t, std::int32_t>> index();

  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
  std::string_view bytes(std::int32_t id) const;  // empty for ids that are not set or out of range
  Kind kind(std::int32_t id) const;
  // The base token of these bytes (marked added meanwhile or not), or -1.
  std::int32_t find(std::string_view bytes) const;

 private:
  struct Entry {
    std::uint32_t begin = 0;
    std::uint32_t length = 0;
    Kind kind = Kind::kNone;
  };
  std::size_t slot_of(std::string_view bytes) const;

  std::string text_;  // all bytes, one after the other: fewer than 4 GiB, as JSON documents are
  std::vector<Entry> entries_;
  std::vector<std::int32_t> slots_;  // open addressing by hash of the bytes; -1 is free
};

}  // namespace chiasm
