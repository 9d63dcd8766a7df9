#include "features/memory_tier.h"

#include <thread>
#include <vector>

#include "features/test_features.h"

namespace chiasm {
namespace {

std::shared_ptr<const Feature> shared_sample(int seed, std::int64_t width = 8) {
  return std::make_shared<const Feature>(sample_feature(seed, width));
}

TEST(MemoryTier, LeastRecentlyUsedGoesFirst) {
  const std::uint64_t cost = MemoryTier::cost(sample_feature(1));
  MemoryTier tier(3 * cost);
  for (int i = 1; i <= 3; ++i) tier.put(shared_sample(i));
  EXPECT_EQ(tier.counters().bytes, 3 * cost);
  EXPECT_NE(tier.get(sample_key(1).id), nullptr);
  tier.put(shared_sample(4));
  EXPECT_EQ(tier.get(sample_key(2).id), nullptr);
  EXPECT_NE(tier.get(sample_key(3).id), nullptr);
  tier.put(shared_sample(5));  // 1 is the oldest now
  EXPECT_EQ(tier.get(sample_key(1).id), nullptr);
  EXPECT_EQ(values_of(*tier.get(sample_key(3).id)), values_of(sample_feature(3)));
  const auto counters = tier.counters();
  EXPECT_EQ(counters.hits, 3U);
  EXPECT_EQ(counters.misses, 2U);
  EXPECT_EQ(counters.evictions, 2U);
  EXPECT_EQ(counters.entries, 3U);
  EXPECT_EQ(counters.bytes, 3 * cost);
}

TEST(MemoryTier, BudgetIsOfBytesNotEntries) {
  const std::uint64_t small = MemoryTier::cost(sample_feature(1)), large = MemoryTier::cost(sample_feature(1, 800));
  MemoryTier tier(large + small);
  for (int i = 1; i <= 3; ++i) tier.put(shared_sample(i));
  tier.put(shared_sample(9, 800));  // pushes out all but one
  EXPECT_EQ(tier.counters().entries, 2U);
  EXPECT_NE(tier.get(sample_key(3).id), nullptr);
  EXPECT_LE(tier.counters().bytes, tier.budget());
  tier.put(shared_sample(9));  // smaller under the same id
  EXPECT_EQ(tier.counters().bytes, 2 * small);
}

TEST(MemoryTier, WhatIsLargerThanTheBudgetPushesNothingOut) {
  MemoryTier tier(2 * MemoryTier::cost(sample_feature(1)));
  tier.put(shared_sample(1));
  tier.put(shared_sample(2, 10'000));
  EXPECT_EQ(tier.counters().refused, 1U);
  EXPECT_NE(tier.get(sample_key(1).id), nullptr);
  MemoryTier none(0);
  none.put(shared_sample(1));
  EXPECT_EQ(none.get(sample_key(1).id), nullptr);
  EXPECT_EQ(none.counters().bytes, 0U);
}

TEST(MemoryTier, AFeatureOutlivesItsEviction) {
  MemoryTier tier(MemoryTier::cost(sample_feature(1)));
  tier.put(shared_sample(1));
  const auto kept = tier.get(sample_key(1).id);
  tier.put(shared_sample(2));
  EXPECT_EQ(tier.get(sample_key(1).id), nullptr);
  EXPECT_EQ(values_of(*kept), values_of(sample_feature(1)));
}

TEST(MemoryTier, WhatIsErasedIsGoneAndItsBytesAreFree) {
  const std::uint64_t cost = MemoryTier::cost(sample_feature(1));
  MemoryTier tier(2 * cost);
  tier.put(shared_sample(1));
  tier.put(shared_sample(2));
  const auto kept = tier.get(sample_key(1).id);
  EXPECT_TRUE(tier.holds(sample_key(1).id));
  EXPECT_TRUE(tier.erase(sample_key(1).id));
  EXPECT_FALSE(tier.holds(sample_key(1).id));
  EXPECT_FALSE(tier.erase(sample_key(1).id));
  EXPECT_EQ(tier.get(sample_key(1).id), nullptr);
  EXPECT_EQ(values_of(*kept), values_of(sample_feature(1)));  // for those who have it already
  EXPECT_EQ(tier.counters().bytes, cost);
  EXPECT_EQ(tier.counters().entries, 1U);
  EXPECT_EQ(tier.counters().erased, 1U);
  tier.put(shared_sample(3));
  EXPECT_NE(tier.get(sample_key(2).id), nullptr);
  EXPECT_EQ(tier.counters().evictions, 0U);
}

TEST(MemoryTier, FromManyThreads) {
  const std::uint64_t cost = MemoryTier::cost(sample_feature(1));
  MemoryTier tier(4 * cost);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&tier, t] {
      for (int i = 0; i < 200; ++i) {
        const int seed = (i * 7 + t * 3) % 10;
        if (const auto feature = tier.get(sample_key(seed).id)) {
          EXPECT_EQ(values_of(*feature), values_of(sample_feature(seed)));
        } else {
          tier.put(shared_sample(seed));
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const auto counters = tier.counters();
  EXPECT_EQ(counters.hits + counters.misses, 800U);
  EXPECT_LE(counters.bytes, 4 * cost);
  EXPECT_EQ(counters.entries * cost, counters.bytes);
}

}  // namespace
}  // namespace chiasm
