// Groups of sequences with the same leading ranges, beside a plain search of all pairs.
#include "kernels/shared_ranges.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

using Table = std::vector<std::int32_t>;

SharedRanges find(const std::vector<Table>& tables, const std::vector<std::int64_t>& ranges,
                  std::int64_t range_blocks = 2) {
  std::vector<RangesOfSequence> sequences;
  for (std::size_t i = 0; i < tables.size(); ++i) sequences.push_back({tables[i], ranges[i]});
  return shared_ranges(sequences, range_blocks);
}

// What must hold of any answer, against the definition: two sequences share range r where all their blocks up to its
// end are the same and both have it.
void expect_right(const std::vector<Table>& tables, const std::vector<std::int64_t>& ranges,
                  std::int64_t range_blocks) {
  const SharedRanges got = find(tables, ranges, range_blocks);
  const std::size_t count = tables.size();
  ASSERT_EQ(got.order.size(), count);
  ASSERT_EQ(got.leading.size(), count);
  EXPECT_EQ(std::set<std::int32_t>(got.order.begin(), got.order.end()).size(), count);
  std::map<std::pair<std::int32_t, std::int32_t>, std::set<std::int32_t>> company;  // of (range, sequence)
  for (const RangeGroup& group : got.groups) {
    ASSERT_GE(group.count, 2);
    ASSERT_GE(group.first, 0);
    ASSERT_LE(static_cast<std::size_t>(group.first + group.count), count);
    const std::set<std::int32_t> members(got.order.begin() + group.first,
                                         got.order.begin() + group.first + group.count);
    for (const std::int32_t member : members) {
      const bool fresh = company.emplace(std::pair{group.range, member}, members).second;
      EXPECT_TRUE(fresh) << "range " << group.range << " of " << member << " is in two groups";
    }
  }
  for (std::size_t a = 0; a < count; ++a) {
    std::int64_t leading = 0;
    for (std::int64_t r = 0; r < ranges[a]; ++r) {
      std::set<std::int32_t> same;
      for (std::size_t b = 0; b < count; ++b) {
        if (ranges[b] <= r) continue;
        if (std::equal(tables[a].begin(), tables[a].begin() + (r + 1) * range_blocks, tables[b].begin()))
          same.insert(static_cast<std::int32_t>(b));
      }
      const auto found = company.find({static_cast<std::int32_t>(r), static_cast<std::int32_t>(a)});
      if (same.size() < 2) {
        EXPECT_EQ(found, company.end());
        continue;
      }
      leading = r + 1;
      ASSERT_NE(found, company.end()) << "range " << r << " of " << a;
      EXPECT_EQ(found->second, same);
      company.erase(found);
    }
    EXPECT_EQ(got.leading[a], leading);
  }
  EXPECT_TRUE(company.empty());
}

TEST(SharedRanges, NothingToShare) {
  EXPECT_TRUE(find({}, {}).groups.empty());
  EXPECT_TRUE(find({{1, 2, 3}}, {1}).groups.empty());
  EXPECT_TRUE(find({{1, 2, 3}, {4, 5, 6}}, {1, 1}).groups.empty());
  // The same blocks, but a range is not whole yet for one of them; a block of two is another.
  EXPECT_TRUE(find({{1, 2}, {1, 2}}, {1, 0}).groups.empty());
  EXPECT_TRUE(find({{1, 2}, {1, 3}}, {1, 1}).groups.empty());
  // Not from the beginning on.
  EXPECT_TRUE(find({{1, 2, 7, 8}, {3, 4, 7, 8}}, {2, 2}).groups.empty());
}

TEST(SharedRanges, PrefixesThatEndAtDifferentPlaces) {
  const std::vector<Table> tables{{1, 2, 3, 4, 5, 6}, {9, 8}, {1, 2, 3, 4, 7, 6}, {1, 2, 0, 4, 5, 6}, {9, 8, 1}};
  const SharedRanges got = find(tables, {3, 1, 3, 3, 1});
  EXPECT_EQ(got.leading, (std::vector<std::int32_t>{2, 1, 2, 1, 1}));
  EXPECT_EQ(got.groups.size(), 3U);
  expect_right(tables, {3, 1, 3, 3, 1}, 2);
}

TEST(SharedRanges, AreTheSameForEqualInputs) {
  const std::vector<Table> tables{{5, 6}, {1, 2}, {5, 6}, {1, 2}, {5, 6}};
  const SharedRanges once = find(tables, {1, 1, 1, 1, 1}), again = find(tables, {1, 1, 1, 1, 1});
  EXPECT_EQ(once.order, (std::vector<std::int32_t>{1, 3, 0, 2, 4}));
  EXPECT_EQ(once.order, again.order);
  EXPECT_EQ(once.groups, again.groups);
}

// Trees of sequences: each goes with one before it for a while, then has blocks of its own.
TEST(SharedRanges, MatchThePlainSearch) {
  std::mt19937_64 random(std::random_device{}());
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int round = 0; round < 60; ++round) {
    const std::int64_t count = pick(0, 40), range_blocks = pick(1, 4);
    std::int32_t next = 0;
    std::vector<Table> tables;
    std::vector<std::int64_t> ranges;
    for (std::int64_t i = 0; i < count; ++i) {
      Table table(static_cast<std::size_t>(pick(0, 30)));
      std::generate(table.begin(), table.end(), [&] { return next++; });
      if (i > 0 && pick(0, 3) > 0) {
        const Table& other = tables[static_cast<std::size_t>(pick(0, i - 1))];
        const auto common = static_cast<std::size_t>(pick(0, 30));
        std::copy_n(other.begin(), std::min({common, other.size(), table.size()}), table.begin());
      }
      const std::int64_t whole = static_cast<std::int64_t>(table.size()) / range_blocks;
      ranges.push_back(pick(0, 2) > 0 ? whole : pick(0, whole));
      tables.push_back(std::move(table));
    }
    expect_right(tables, ranges, range_blocks);
    ASSERT_FALSE(testing::Test::HasFailure()) << "round " << round;
  }
}

TEST(SharedRanges, PiecesAreEvenAndOfTwoAtLeast) {
  for (const std::int32_t most : {3, 4, 9, 10, 64})
    for (std::int32_t count = 2; count < 200; ++count) {
      std::int32_t next = 7;
      for (const RangeGroup& piece : pieces_of({5, 7, count}, most)) {
        EXPECT_EQ(piece.range, 5);
        EXPECT_EQ(piece.first, next);
        EXPECT_GE(piece.count, 2);
        EXPECT_LE(piece.count, most);
        next += piece.count;
      }
      EXPECT_EQ(next, 7 + count);
    }
}

}  // namespace
}  // namespace chiasm
