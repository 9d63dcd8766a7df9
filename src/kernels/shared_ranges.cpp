#include "kernels/shared_ranges.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/check.h"

namespace chiasm {

SharedRanges shared_ranges(std::span<const RangesOfSequence> sequences, std::int64_t range_blocks) {
  CHECK(range_blocks > 0);
  for (const RangesOfSequence& sequence : sequences)
    CHECK(static_cast<std::int64_t>(sequence.blocks.size()) / range_blocks >= sequence.ranges);
  SharedRanges out;
  out.order.resize(sequences.size());
  std::iota(out.order.begin(), out.order.end(), 0);
  out.leading.resize(sequences.size());
  // Sequences that are the same so far, to be told apart by their next range. A stack, not calls: as deep as ranges.
  std::vector<RangeGroup> open{{0, 0, static_cast<std::int32_t>(sequences.size())}};
  while (!open.empty()) {
    const RangeGroup same = open.back();
    open.pop_back();
    const auto blocks = [&](std::int32_t sequence) {
      return sequences[static_cast<std::size_t>(sequence)].blocks.subspan(
          static_cast<std::size_t>(same.range * range_blocks), static_cast<std::size_t>(range_blocks));
    };
    const auto begin = out.order.begin() + same.first;
    const auto end = std::stable_partition(begin, begin + same.count, [&](std::int32_t sequence) {
      return sequences[static_cast<std::size_t>(sequence)].ranges > same.range;
    });
    if (end - begin < 2) continue;
    // Mostly all are the same again; then nothing is sorted.
    const auto differs = [&](std::int32_t a, std::int32_t b) { return !std::ranges::equal(blocks(a), blocks(b)); };
    if (std::adjacent_find(begin, end, differs) != end) {
      std::stable_sort(begin, end, [&](std::int32_t a, std::int32_t b) {
        return std::ranges::lexicographical_compare(blocks(a), blocks(b));
      });
    }
    for (auto first = begin; first != end;) {
      auto last = std::adjacent_find(first, end, differs);  // of those that are the same
      if (last != end) ++last;
      if (last - first > 1) {
        const RangeGroup group{same.range, static_cast<std::int32_t>(first - out.order.begin()),
                               static_cast<std::int32_t>(last - first)};
        out.groups.push_back(group);
        open.push_back({same.range + 1, group.first, group.count});
        std::for_each(first, last,
                      [&](std::int32_t sequence) { out.leading[static_cast<std::size_t>(sequence)] = same.range + 1; });
      }
      first = last;
    }
  }
  return out;
}

std::vector<RangeGroup> pieces_of(const RangeGroup& group, std::int32_t most) {
  CHECK(most >= 3);
  const std::int32_t count = (group.count + most - 1) / most;
  std::vector<RangeGroup> out;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t begin = group.count * i / count, end = group.count * (i + 1) / count;
    out.push_back({group.range, group.first + begin, end - begin});
  }
  return out;
}

}  // namespace chiasm
