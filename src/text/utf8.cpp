#include "text/utf8.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include <utf8proc.h>

#include "base/check.h"

namespace chiasm {
namespace {

// Length of the run of ASCII that `text` begins with.
std::size_t ascii_run(std::string_view text) {
  std::size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080ULL) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

struct Range {
  std::int32_t first;
  std::int32_t last;
};

// Characters of combining class 0 that NFC leaves alone whatever stands before them. Not all such, but those that make
// up most text: Latin, punctuation, CJK, kana, Hangul syllables, full-width forms, emoji. Sorted.
constexpr std::array<Range, 10> kPlain = {{{0x0000, 0x02FF},
                                           {0x2010, 0x205E},
                                           {0x3001, 0x3029},
                                           {0x3041, 0x3096},
                                           {0x30A0, 0x30FA},
                                           {0x3400, 0x4DBF},
                                           {0x4E00, 0x9FFF},
                                           {0xAC00, 0xD7A3},
                                           {0xFF01, 0xFF5E},
                                           {0x1F300, 0x1F64F}}};

int combining_class(std::int32_t code) { return utf8proc_get_property(code)->combining_class; }

// The canonical ordering of UAX #15. utf8proc does it by neighbour swaps, quadratic in a run of marks; this counts.
void order_marks(std::vector<utf8proc_int32_t>& codes) {
  std::vector<utf8proc_int32_t> run;
  for (std::size_t i = 0; i < codes.size();) {
    std::size_t end = i;
    while (end < codes.size() && combining_class(codes[end]) != 0) ++end;
    if (end - i > 1) {
      std::array<std::size_t, 257> place{};  // place[c]: where the next mark of class c goes
      run.assign(codes.begin() + static_cast<std::ptrdiff_t>(i), codes.begin() + static_cast<std::ptrdiff_t>(end));
      for (const auto code : run) ++place[static_cast<std::size_t>(combining_class(code)) + 1];
      place[0] = i;
      std::partial_sum(place.begin(), place.end(), place.begin());
      for (const auto code : run) codes[place[static_cast<std::size_t>(combining_class(code))]++] = code;
    }
    i = std::max(end, i + 1);
  }
}

}  // namespace

Utf8Step next_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {static_cast<std::int32_t>(lead), 1};
  // Table 3-7 of the Unicode Standard: how many bytes follow, and the bounds of the first of them.
  std::size_t follow = 0;
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    follow = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    follow = 2;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    follow = 3;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Utf8Step::kIllFormed, 1};
  }
  auto code = static_cast<std::int32_t>(lead & (0x3FU >> follow));
  for (std::size_t i = 1; i <= follow; ++i) {
    if (i == text.size()) return {Utf8Step::kIncomplete, i};
    const unsigned next = byte(i);
    if (next < low || next > high) return {Utf8Step::kIllFormed, i};
    low = 0x80;
    high = 0xBF;
    code = (code << 6) | static_cast<std::int32_t>(next & 0x3FU);
  }
  return {code, follow + 1};
}

void append_utf8(std::int32_t code, std::string& out) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const utf8proc_ssize_t length = utf8proc_encode_char(code, bytes.data());
  CHECK(length > 0);
  out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(length));
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    out += step.code < 0 ? kReplacementCharacter : text.substr(0, step.length);
    text.remove_prefix(step.length);
  }
  return out;
}

bool is_surely_nfc(std::string_view text) {
  while (true) {
    text.remove_prefix(ascii_run(text));
    if (text.empty()) return true;
    const Utf8Step step = next_utf8(text);
    const auto* range = std::lower_bound(kPlain.begin(), kPlain.end(), step.code,
                                         [](const Range& r, std::int32_t code) { return r.last < code; });
    if (range == kPlain.end() || step.code < range->first) return false;
    text.remove_prefix(step.length);
  }
}

std::string to_nfc(std::string_view text) {
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    CHECK(step.code >= 0);
    text.remove_prefix(step.length);
    std::array<utf8proc_int32_t, 32> parts{};  // a canonical decomposition has at most 4
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(step.code, parts.data(), parts.size(), UTF8PROC_DECOMPOSE, &boundary);
    CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
    codes.insert(codes.end(), parts.begin(), parts.begin() + count);
  }
  order_marks(codes);
  // A set of flags in the library's type for one. NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange)
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()), options);
  CHECK(count >= 0);
  std::string out;
  out.reserve(codes.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(codes[static_cast<std::size_t>(i)], out);
  return out;
}

}  // namespace chiasm
