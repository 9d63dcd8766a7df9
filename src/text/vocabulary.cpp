#include "text/vocabulary.h"

#include <array>
#include <bit>
#include <functional>

#include "base/check.h"
#include "text/utf8.h"

namespace chiasm {
namespace {

constexpr std::size_t kAlphabetEnd = 0x144;

// Code point to byte, -1 where it stands for none. Bytes that are printable in Latin-1 stand for themselves; the
// others, in order, are U+0100 and up.
constexpr std::array<std::int16_t, kAlphabetEnd> kByteOf = [] {
  std::array<std::int16_t, kAlphabetEnd> out{};
  for (auto& byte : out) byte = -1;
  std::size_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    out[printable ? static_cast<std::size_t>(byte) : next++] = static_cast<std::int16_t>(byte);
  }
  return out;
}();

}  // namespace

bool from_byte_alphabet(std::string_view text, std::string& bytes) {
  const std::size_t before = bytes.size();
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    const std::int16_t byte = step.code >= 0 && step.code < static_cast<std::int32_t>(kAlphabetEnd)
                                  ? kByteOf[static_cast<std::size_t>(step.code)]
                                  : std::int16_t{-1};
    if (byte < 0) {
      bytes.resize(before);
      return false;
    }
    bytes += static_cast<char>(byte);
    text.remove_prefix(step.length);
  }
  return true;
}

void Vocabulary::set(std::int32_t id, std::string_view bytes, Kind kind) {
  Entry& entry = entries_[static_cast<std::size_t>(id)];
  CHECK(entry.kind == Kind::kNone);
  entry = {static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(bytes.size()), kind};
  text_ += bytes;
}

std::string_view Vocabulary::bytes(std::int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const Entry& entry = entries_[static_cast<std::size_t>(id)];
  return std::string_view(text_).substr(entry.begin, entry.length);
}

Vocabulary::Kind Vocabulary::kind(std::int32_t id) const {
  return id < 0 || id >= size() ? Kind::kNone : entries_[static_cast<std::size_t>(id)].kind;
}

std::size_t Vocabulary::slot_of(std::string_view bytes) const {
  std::size_t slot = std::hash<std::string_view>{}(bytes) & (slots_.size() - 1);
  while (slots_[slot] >= 0 && this->bytes(slots_[slot]) != bytes) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

std::optional<std::pair<std::int32_t, std::int32_t>> Vocabulary::index() {
  text_.shrink_to_fit();
  slots_.assign(std::bit_ceil(2 * entries_.size() + 2), -1);
  for (std::int32_t id = 0; id < size(); ++id) {
    if (kind(id) != Kind::kBase) continue;
    std::int32_t& slot = slots_[slot_of(bytes(id))];
    if (slot >= 0) return std::pair{slot, id};
    slot = id;
  }
  return std::nullopt;
}

std::int32_t Vocabulary::find(std::string_view bytes) const { return slots_[slot_of(bytes)]; }

}  // namespace chiasm
