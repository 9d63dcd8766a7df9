#include "base/base64.h"

#include <array>
#include <cstdint>
#include <cstring>

namespace chiasm {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint32_t kForeign = 1U << 31;

// The six bits of each letter where they stand in a group of four, the group's first byte lowest; kForeign for what is
// no letter. Four look-ups and three ORs make three bytes, and one test tells whether all four were letters.
using Places = std::array<std::array<std::uint32_t, 256>, 4>;

constexpr std::uint32_t bytes_first_lowest(std::uint32_t bits24) {
  return (bits24 >> 16 & 0xFF) | (bits24 & 0xFF00) | (bits24 & 0xFF) << 16;
}

constexpr Places make_places() {
  Places out{};
  for (auto& place : out) place.fill(kForeign);
  const auto put = [&](char letter, std::uint32_t value) {
    for (std::size_t place = 0; place < 4; ++place)
      out[place][static_cast<unsigned char>(letter)] = bytes_first_lowest(value << (18 - 6 * place));
  };
  for (std::uint32_t value = 0; value < 64; ++value) put(kAlphabet[value], value);
  put('-', 62);
  put('_', 63);
  return out;
}
constexpr Places kPlaces = make_places();

std::uint32_t group_of(const unsigned char* in) {
  return kPlaces[0][in[0]] | kPlaces[1][in[1]] | kPlaces[2][in[2]] | kPlaces[3][in[3]];
}

void store(unsigned char* out, std::uint32_t group, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<unsigned char>(group >> (8 * i));
}

// The two letters of each twelve bits.
constexpr std::array<std::array<char, 2>, 4096> make_pairs() {
  std::array<std::array<char, 2>, 4096> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = {kAlphabet[i >> 6], kAlphabet[i & 63]};
  return out;
}
constexpr auto kPairs = make_pairs();

tl::unexpected<Error> foreign(std::string_view text, std::size_t from) {
  for (std::size_t at = from; at < text.size(); ++at) {
    const auto c = static_cast<unsigned char>(text[at]);
    if ((kPlaces[0][c] & kForeign) == 0) continue;
    const std::string shown = c > ' ' && c < 0x7F ? fmt::format("'{}'", text[at]) : fmt::format("byte 0x{:02X}", c);
    return fail(Code::kInvalidArgument, "base64: expected A-Z, a-z, 0-9, '+' or '/' at character {}, got {}", at,
                shown);
  }
  return fail(Code::kInternal, "base64: no foreign character after all");
}

}  // namespace

Result<std::string> decode_base64(std::string_view text) {
  const std::size_t written = text.size();
  std::size_t padding = 0;
  while (padding < 2 && !text.empty() && text.back() == '=') {
    text.remove_suffix(1);
    ++padding;
  }
  const std::size_t rest = text.size() % 4, groups = text.size() / 4;
  std::string out(groups * 3 + (rest == 0 ? 0 : rest - 1), '\0');
  const auto* in = reinterpret_cast<const unsigned char*>(text.data());
  auto* to = reinterpret_cast<unsigned char*>(out.data());
  std::size_t group = 0;
  // A fourth byte is written over by the next group, so the last groups are left to the exact loop below.
  for (; group + 5 <= groups; group += 4) {
    const std::array<std::uint32_t, 4> four = {group_of(in), group_of(in + 4), group_of(in + 8), group_of(in + 12)};
    if (((four[0] | four[1] | four[2] | four[3]) & kForeign) != 0) return foreign(text, group * 4);
    for (std::size_t i = 0; i < 4; ++i) {
      unsigned char bytes[4];
      store(bytes, four[i], 4);
      std::memcpy(to + 3 * i, bytes, 4);
    }
    in += 16;
    to += 12;
  }
  for (; group < groups; ++group) {
    const std::uint32_t bits = group_of(in);
    if ((bits & kForeign) != 0) return foreign(text, group * 4);
    store(to, bits, 3);
    in += 4;
    to += 3;
  }
  if (rest != 0) {
    unsigned char last[4] = {'A', 'A', 'A', 'A'};
    std::memcpy(last, in, rest);
    const std::uint32_t bits = group_of(last);
    if ((bits & kForeign) != 0) return foreign(text, groups * 4);
    if (rest == 1)
      return fail(Code::kInvalidArgument, "base64: it ends in the middle of a byte: {} characters without padding",
                  text.size());
    if (bits >> (8 * (rest - 1)) != 0)
      return fail(Code::kInvalidArgument, "base64: expected zero bits behind the last byte, got '{}' at character {}",
                  text.back(), text.size() - 1);
    store(to, bits, rest - 1);
  }
  if (padding != 0 && rest + padding != 4)
    return fail(Code::kInvalidArgument, "base64: expected {} '=' at the end of {} characters, got {}",
                rest == 0 ? 0 : 4 - rest, written, padding);
  return out;
}

std::string encode_base64(std::span<const std::byte> bytes) {
  std::string out((bytes.size() + 2) / 3 * 4, '=');
  char* to = out.data();
  const auto at = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
  std::size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3, to += 4) {
    const std::uint32_t bits = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    std::memcpy(to, kPairs[bits >> 12].data(), 2);
    std::memcpy(to + 2, kPairs[bits & 0xFFF].data(), 2);
  }
  if (const std::size_t rest = bytes.size() - i; rest != 0) {
    const std::uint32_t bits = at(i) << 16 | (rest == 2 ? at(i + 1) << 8 : 0);
    std::memcpy(to, kPairs[bits >> 12].data(), 2);
    if (rest == 2) to[2] = kPairs[bits & 0xFFF][0];
  }
  return out;
}

}  // namespace chiasm
