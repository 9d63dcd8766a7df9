#include "text/split.h"

#include <array>
#include <cstdint>

#include <utf8proc.h>

#include "text/utf8.h"

namespace chiasm {
namespace {

enum class Class : std::uint8_t { kLetter, kNumber, kNewline, kSpace, kOther };  // kNewline: CR and LF, spaces as well

Class classify(std::int32_t code) {
  switch (code) {
    case '\n':
    case '\r': return Class::kNewline;
    case '\t':
    case '\v':
    case '\f':
    case 0x85: return Class::kSpace;  // white space, though of category Cc
    default: break;
  }
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return Class::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return Class::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return Class::kSpace;
    default: return Class::kOther;
  }
}

constexpr std::array<Class, 128> kAscii = [] {
  std::array<Class, 128> out{};
  for (int c = 0; c < 128; ++c) {
    Class found = Class::kOther;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) found = Class::kLetter;
    if (c >= '0' && c <= '9') found = Class::kNumber;
    if (c == ' ' || c == '\t' || c == '\v' || c == '\f') found = Class::kSpace;
    if (c == '\r' || c == '\n') found = Class::kNewline;
    out[static_cast<std::size_t>(c)] = found;
  }
  return out;
}();

bool is_space(Class c) { return c == Class::kSpace || c == Class::kNewline; }

// A character of the text: its class and where it ends. Past the end of the text, `end` is npos.
struct Char {
  Class kind = Class::kOther;
  std::size_t end = std::string_view::npos;
  bool exists() const { return end != std::string_view::npos; }
};

Char char_at(std::string_view text, std::size_t pos) {
  if (pos >= text.size()) return {};
  const auto byte = static_cast<unsigned char>(text[pos]);
  if (byte < 0x80) return {kAscii[byte], pos + 1};
  const Utf8Step step = next_utf8(text.substr(pos));
  // Well-formed text is the caller's part; anything else is one piece of punctuation rather than a wrong read.
  return {step.code < 0 ? Class::kOther : classify(step.code), pos + step.length};
}

// The end of the run of characters from `pos` on for which `wanted` holds.
template <class Wanted>
std::size_t run_end(std::string_view text, std::size_t pos, Wanted wanted) {
  for (Char c = char_at(text, pos); c.exists() && wanted(c.kind); c = char_at(text, pos)) pos = c.end;
  return pos;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d), or 0.
std::size_t contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [&](std::size_t i) { return i < text.size() ? static_cast<char>(text[i] | 0x20) : '\0'; };
  switch (lower(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return lower(2) == 'e' ? 3 : 0;
    case 'l': return lower(2) == 'l' ? 3 : 0;
    default: break;
  }
  return text.substr(1, 2) == "\xC5\xBF" ? 3 : 0;  // U+017F, the long s, is an s when case is ignored
}

// The end of a piece that begins with white space and is no prefix of a word: \s*[\r\n]+|\s+(?!\S)|\s+
std::size_t space_piece(std::string_view text) {
  std::size_t end = 0;
  std::size_t last_start = 0;
  std::size_t newline_end = 0;
  for (Char c = char_at(text, 0); c.exists() && is_space(c.kind); c = char_at(text, end)) {
    last_start = end;
    end = c.end;
    if (c.kind == Class::kNewline) newline_end = end;
  }
  if (newline_end != 0) return newline_end;
  if (end == text.size() || last_start == 0) return end;
  return last_start;  // the last space goes with the word after it
}

}  // namespace

std::string_view qwen2_pattern() {
  return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
}

std::size_t qwen2_piece(std::string_view text) {
  const auto letter = [](Class c) { return c == Class::kLetter; };
  const auto other = [](Class c) { return c == Class::kOther; };
  const auto newline = [](Class c) { return c == Class::kNewline; };
  if (const std::size_t length = contraction(text); length != 0) return length;
  const Char first = char_at(text, 0);
  switch (first.kind) {
    case Class::kLetter: return run_end(text, first.end, letter);
    case Class::kNumber: return first.end;
    case Class::kNewline: return space_piece(text);
    case Class::kSpace:
    case Class::kOther: break;
  }
  const Char second = char_at(text, first.end);
  if (second.exists() && second.kind == Class::kLetter) return run_end(text, second.end, letter);
  if (first.kind == Class::kOther) return run_end(text, run_end(text, first.end, other), newline);
  if (text[0] == ' ' && second.exists() && second.kind == Class::kOther)
    return run_end(text, run_end(text, second.end, other), newline);
  return space_piece(text);
}

}  // namespace chiasm
