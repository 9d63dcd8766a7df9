// Digests that name things (BLAKE2b cut to 256 bits) and checksums that find damage (XXH3).
//
// A Hasher frames what it is given: add() hashes the field's name, its length and its bytes, so that two different
// lists of fields never hash alike. Thread contract: one thread a Hasher; Digest is a value.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chiasm {

struct Digest {
  std::array<std::uint8_t, 32> bytes{};

  auto operator<=>(const Digest&) const = default;
  std::string hex() const;  // 64 lower-case digits
  static Result<Digest> from_hex(std::string_view hex);
};

// BLAKE2b-512 cut to its first 256 bits (RFC 7693).
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  // Unframed bytes, for one long message in pieces.
  Hasher& update(std::span<const std::byte> bytes);

  // One typed, length-framed field.
  Hasher& add(std::string_view name, std::string_view text);
  Hasher& add(std::string_view name, std::span<const std::byte> bytes);
  Hasher& add(std::string_view name, const Digest& digest);
  Hasher& add(std::string_view name, std::int64_t number);
  Hasher& add(std::string_view name, double number);  // the bits of the IEEE double

  Digest finish();  // once; the Hasher is spent afterwards

 private:
  void frame(char type, std::string_view name, std::uint64_t size);
  struct State;
  std::unique_ptr<State> state_;
};

Digest digest_of(std::span<const std::byte> bytes);

// XXH3-64 of the bytes: finds damage, names nothing.
std::uint64_t checksum_of(std::span<const std::byte> bytes);

}  // namespace chiasm
