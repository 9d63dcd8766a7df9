#include "language/kv_blocks.h"

#include <set>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

TEST(KvBlocksTest, ABlockIsFreeAgainWhenItsLastHolderLetsGo) {
  KvBlocks blocks(3);
  const std::int32_t a = blocks.take(), b = blocks.take();
  EXPECT_NE(a, b);
  EXPECT_EQ(blocks.free(), 1);
  blocks.share(a);
  blocks.give_back(a);
  EXPECT_EQ(blocks.free(), 1);
  blocks.give_back(a);
  EXPECT_EQ(blocks.free(), 2);
  const std::set<std::int32_t> taken{blocks.take(), blocks.take()};
  EXPECT_EQ(taken.count(b), 0U);
  EXPECT_EQ(blocks.free(), 0);
}

TEST(KvBlocksDeathTest, MisuseIsOurBug) {
  KvBlocks blocks(1);
  const std::int32_t a = blocks.take();
  EXPECT_DEATH(blocks.take(), "CHECK");
  blocks.give_back(a);
  EXPECT_DEATH(blocks.give_back(a), "CHECK");
}

}  // namespace
}  // namespace chiasm
