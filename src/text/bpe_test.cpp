#include "text/bpe.h"

#include <map>
#include <numeric>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

std::array<std::int32_t, 256> identity() {
  std::array<std::int32_t, 256> out{};
  std::iota(out.begin(), out.end(), 0);
  return out;
}

std::vector<std::int32_t> encode(const Bpe& bpe, std::string_view piece) {
  std::vector<std::int32_t> out;
  bpe.encode(piece, out);
  return out;
}

TEST(Bpe, LowestRankFirstThenLeftmost) {
  Bpe bpe(identity(), 3);
  bpe.add_merge('b', 'c', {0, 300});
  bpe.add_merge('a', 'b', {1, 301});
  bpe.add_merge('a', 'a', {2, 302});
  EXPECT_EQ(encode(bpe, "abc"), (std::vector<std::int32_t>{'a', 300}));
  EXPECT_EQ(encode(bpe, "abab"), (std::vector<std::int32_t>{301, 301}));
  EXPECT_EQ(encode(bpe, "aaa"), (std::vector<std::int32_t>{302, 'a'}));
  EXPECT_EQ(encode(bpe, ""), std::vector<std::int32_t>{});
  EXPECT_EQ(encode(bpe, "\xff"), std::vector<std::int32_t>{255});
}

TEST(Bpe, AppendsToWhatIsThere) {
  const Bpe bpe(identity(), 0);
  std::vector<std::int32_t> out = {7};
  bpe.encode("ab", out);
  EXPECT_EQ(out, (std::vector<std::int32_t>{7, 'a', 'b'}));
}

// By the definition, without cleverness, on random merges whose order need not be that of their results' ids; pieces
// of all lengths, so that both ways of encoding are compared.
TEST(Bpe, EqualsTheDefinition) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::pair<std::int32_t, std::int32_t>> pairs;
    std::vector<std::string> spelled(256);
    std::vector<std::int32_t> usable = {'a', 'b', 'c'};
    for (const auto id : usable) spelled[static_cast<std::size_t>(id)] = static_cast<char>(id);
    std::map<std::string, std::int32_t> known = {{"a", 'a'}, {"b", 'b'}, {"c", 'c'}};
    std::map<std::pair<std::int32_t, std::int32_t>, Bpe::Merge> table;
    for (int i = 0; i < 40; ++i) {
      const auto left = usable[random() % usable.size()];
      const auto right = usable[random() % usable.size()];
      if (table.contains({left, right})) continue;
      const std::string text = spelled[static_cast<std::size_t>(left)] + spelled[static_cast<std::size_t>(right)];
      // Two pairs may make the same token.
      const auto [place, fresh] = known.try_emplace(text, static_cast<std::int32_t>(spelled.size()));
      if (fresh) {
        spelled.push_back(text);
        usable.push_back(place->second);
      }
      table[{left, right}] = {0, place->second};
      pairs.emplace_back(left, right);
    }
    std::shuffle(pairs.begin(), pairs.end(), random);
    Bpe bpe(identity(), pairs.size());
    for (std::size_t rank = 0; rank < pairs.size(); ++rank) {
      auto& merge = table[pairs[rank]];
      merge.rank = static_cast<std::uint32_t>(rank);
      bpe.add_merge(pairs[rank].first, pairs[rank].second, merge);
    }
    for (int text = 0; text < 40; ++text) {
      std::string piece;
      const auto length = random() % 120;
      for (std::size_t i = 0; i < length; ++i) piece += static_cast<char>('a' + random() % 3);
      std::vector<std::int32_t> expected(piece.begin(), piece.end());
      while (true) {
        std::size_t best = 0;
        Bpe::Merge merge;
        for (std::size_t i = 0; i + 1 < expected.size(); ++i) {
          const auto found = table.find({expected[i], expected[i + 1]});
          if (found == table.end() || found->second.rank >= merge.rank) continue;
          best = i;
          merge = found->second;
        }
        if (merge.result < 0) break;
        expected[best] = merge.result;
        expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(best) + 1);
      }
      ASSERT_EQ(encode(bpe, piece), expected) << piece;
    }
  }
}

}  // namespace
}  // namespace chiasm
