// Which sequences of a decode step have ranges of keys in common: the same blocks of the pool at the same places of
// their tables, as many questions about one picture do. For the card's decode attention, which reads such a range once
// for all of them (shared_decode_cuda.cu); knows nothing of a card. Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace chiasm {

struct RangesOfSequence {
  std::span<const std::int32_t> blocks;  // its block table
  std::int64_t ranges = 0;               // leading ranges that may be shared: whole, and nothing in them is new
};

// Range `range` of the sequences order[first .. first + count).
struct RangeGroup {
  std::int32_t range = 0, first = 0, count = 0;
  bool operator==(const RangeGroup&) const = default;
};

struct SharedRanges {
  std::vector<std::int32_t> order;    // of sequences: each once, members of a group beside each other
  std::vector<std::int32_t> leading;  // of each sequence: its first so many ranges are in groups
  std::vector<RangeGroup> groups;     // of two members or more, every member in them the same up to the range's end
};

// Ranges are of `range_blocks` blocks; a table holds range_blocks * ranges or more.
SharedRanges shared_ranges(std::span<const RangesOfSequence> sequences, std::int64_t range_blocks);

// The group in pieces of up to `most` members (3 or more), as even as they can be: two or more in each.
std::vector<RangeGroup> pieces_of(const RangeGroup& group, std::int32_t most);

}  // namespace chiasm
