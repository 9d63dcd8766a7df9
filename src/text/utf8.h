// UTF-8 one character at a time, and the NFC normal form.
//
// Ill-formed input follows the Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts", which is also
// what Python's errors="replace" and Rust's from_utf8_lossy do. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"  // is_utf8

namespace chiasm {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Step {
  static constexpr std::int32_t kIllFormed = -1;   // `length` bytes can be part of no character
  static constexpr std::int32_t kIncomplete = -2;  // `length` bytes, all that is left, may begin a character

  std::int32_t code = 0;   // the code point, or one of the two above
  std::size_t length = 1;  // bytes taken, at least 1
};

// What `text` begins with; `text` must not be empty.
Utf8Step next_utf8(std::string_view text);

void append_utf8(std::int32_t code, std::string& out);

// `text` with each ill-formed part (an incomplete end too) replaced by U+FFFD.
std::string repair_utf8(std::string_view text);

// Normalization Form C (UAX #15) of well-formed `text`. O(n log n) for any input.
std::string to_nfc(std::string_view text);

// True where it is plain that `text` is in NFC; false says nothing.
bool is_surely_nfc(std::string_view text);

}  // namespace chiasm
