#include "models/qwen2_vl/head_shares.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

// Every query head is somewhere once, beside the kv head that it reads, at the place where a part's attention looks.
void expect_whole(std::int64_t heads, std::int64_t kv_heads, int parts) {
  const auto shares = head_shares(heads, kv_heads, parts);
  ASSERT_TRUE(shares) << shares.error().message;
  const std::int64_t group = heads / kv_heads;
  ASSERT_EQ(shares->query.width % shares->kv.width, 0);
  const std::int64_t own_group = shares->query.width / shares->kv.width;
  std::vector<int> seen(static_cast<std::size_t>(heads), 0);
  ASSERT_EQ(shares->query.of_part.size(), static_cast<std::size_t>(parts));
  for (std::size_t p = 0; p < shares->query.of_part.size(); ++p) {
    const Share query = shares->query.of_part[p], kv = shares->kv.of_part[p];
    ASSERT_LE(query.count, shares->query.width);
    ASSERT_LE(query.begin + query.count, heads);
    ASSERT_LE(kv.begin + kv.count, kv_heads);
    for (std::int64_t h = 0; h < query.count; ++h) {
      ++seen[static_cast<std::size_t>(query.begin + h)];
      EXPECT_EQ((query.begin + h) / group, kv.begin + h / own_group);
    }
  }
  EXPECT_THAT(seen, testing::Each(1)) << heads << " heads, " << kv_heads << " kv heads, " << parts << " parts";
}

TEST(HeadShares, EveryHeadIsComputedOnce) {
  for (const auto& [heads, kv_heads] : {std::pair{12, 2}, {28, 4}, {64, 8}, {3, 1}, {4, 2}, {16, 16}})
    for (int parts = 1; parts <= heads; ++parts)
      if (kv_heads % parts == 0 || parts % kv_heads == 0) expect_whole(heads, kv_heads, parts);
}

TEST(HeadShares, OtherNumbersAreRefused) {
  for (const auto& [kv_heads, parts] : {std::pair{4, 3}, {4, 6}, {2, 14}, {2, 5}}) {
    const auto shares = head_shares(12, kv_heads, parts);
    ASSERT_FALSE(shares) << kv_heads << ", " << parts;
    EXPECT_EQ(shares.error().code, Code::kInvalidArgument);
    EXPECT_THAT(shares.error().message, testing::HasSubstr(std::to_string(parts) + " devices"));
  }
}

TEST(HeadShares, UnitsOfAHead) {
  const Shares scaled_up = scaled({2, {{0, 2}, {2, 1}}}, 8);
  EXPECT_EQ(scaled_up.width, 16);
  EXPECT_EQ(scaled_up.of_part[1].begin, 16);
  EXPECT_EQ(scaled_up.of_part[1].count, 8);
}

}  // namespace
}  // namespace chiasm
