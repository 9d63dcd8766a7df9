// Byte-pair encoding of one piece of text: the merges of a vocabulary, applied lowest rank first.
//
// Knows ids, not what they spell. Thread contract: immutable once the merges are in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace chiasm {

class Bpe {
 public:
  struct Merge {
    static constexpr std::uint32_t kNoRank = 0xFFFFFFFF;
    std::uint32_t rank = kNoRank;
    std::int32_t result = -1;
  };

  // `byte_ids[b]`: the token of the single byte b. Room is made for `merges` merges.
  Bpe(const std::array<std::int32_t, 256>& byte_ids, std::size_t merges);

  // No more than the constructor was told; ids are not negative. A pair given twice keeps the later one.
  void add_merge(std::int32_t left, std::int32_t right, Merge merge);

  // Appends the ids of `piece`. Sennrich et al. 2016: of all neighbours, the pair of lowest rank is merged, the
  // leftmost one first, until no pair has a rank. O(n log n) time in the length of the piece.
  void encode(std::string_view piece, std::vector<std::int32_t>& out) const;

 private:
  struct Slot {
    std::uint64_t pair = kEmpty;
    Merge merge;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

  std::size_t slot_of(std::uint64_t pair) const;
  Merge find(std::int32_t left, std::int32_t right) const;
  void encode_short(std::string_view piece, std::vector<std::int32_t>& out) const;
  void encode_long(std::string_view piece, std::vector<std::int32_t>& out) const;

  std::array<std::int32_t, 256> byte_ids_;
  std::vector<Slot> slots_;  // open addressing; a power of two, at most half full
};

}  // namespace chiasm
