// The tree of KV blocks against a pool that remembers what was written where.
#include "language/prefix_cache.h"

#include <deque>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

// What a slot of the pool holds: the hash of a token and of all before it, as keys and values are.
struct Contents {
  std::uint64_t value = 0;
  bool finite = true;
};

class PrefixCacheTest : public testing::Test {
 protected:
  struct User {
    std::string salt;
    std::vector<KvSlot> slots;
    PrefixCache::Chain chain;
    std::int64_t computed = 0, reused = 0;
    bool poisoned = false;
  };

  void make(std::int64_t blocks, bool share = true) {
    pool_.assign(static_cast<std::size_t>(blocks), std::vector<Contents>(kKvBlock));
    cache_ = std::make_unique<PrefixCache>(
        blocks, share,
        PrefixCache::PoolActions{.copy = [this](std::int32_t from, std::int32_t to) { at(to) = at(from); },
                                 .clear =
                                     [this](std::int32_t block, std::int64_t first) {
                                       for (std::int64_t i = first; i < kKvBlock; ++i)
                                         at(block)[static_cast<std::size_t>(i)] = {};
                                     }});
  }

  std::vector<Contents>& at(std::int32_t block) { return pool_[static_cast<std::size_t>(block)]; }
  Contents& slot(const User& user, std::int64_t t) {
    return at(user.chain.block_table()[static_cast<std::size_t>(t / kKvBlock)])[static_cast<std::size_t>(t % kKvBlock)];
  }

  static std::vector<std::uint64_t> hashes(const User& user) {
    std::vector<std::uint64_t> out;
    std::uint64_t state = std::hash<std::string>{}(user.salt);
    for (const KvSlot& one : user.slots) {
      for (const std::int64_t part : {std::int64_t{one.token_id}, std::int64_t{one.row}, std::int64_t{one.position[0]},
                                      std::int64_t{one.position[2]}, std::int64_t{one.feature.digest.bytes[5]}})
        state = (state ^ static_cast<std::uint64_t>(part)) * 0x9E3779B97F4A7C15ULL + 1;
      out.push_back(state ^= state >> 29);
    }
    return out;
  }

  void start(User& user) {
    const auto known = std::span<const KvSlot>(user.slots).first(user.slots.size() - 1);
    const PrefixCache::Match match = cache_->match(user.salt, known);
    user.computed = user.reused = cache_->start(user.chain, user.salt, user.slots, match);
    ASSERT_LE(user.reused, match.tokens);
    check(user);
  }
  void compute(User& user, std::int64_t tokens) {
    const std::int64_t end = std::min(user.computed + tokens, static_cast<std::int64_t>(user.slots.size()));
    cache_->grow(user.chain, end);
    const auto values = hashes(user);
    for (std::int64_t t = user.computed; t < end; ++t)
      slot(user, t) = {values[static_cast<std::size_t>(t)], !user.poisoned};
    user.computed = end;
    cache_->advance(user.chain, end);
    check(user);
  }
  // Everything computed is there, and nothing else in the blocks can do harm.
  void check(const User& user) {
    const auto values = hashes(user);
    bool all_finite = true;
    for (std::int64_t t = 0; t < user.chain.blocks() * kKvBlock; ++t) {
      if (t < user.computed) {
        ASSERT_EQ(slot(user, t).value, values[static_cast<std::size_t>(t)]) << "token " << t;
        all_finite &= slot(user, t).finite;
      } else if (all_finite) {
        ASSERT_TRUE(slot(user, t).finite) << "behind token " << t;
      }
    }
  }
  bool sees_finite(const User& user) {
    for (std::int64_t t = 0; t < user.computed; ++t)
      if (!slot(user, t).finite) return false;
    return true;
  }

  static std::vector<KvSlot> text(std::int64_t count, std::int32_t first = 0) {
    std::vector<KvSlot> out;
    for (std::int64_t t = 0; t < count; ++t) {
      const auto position = static_cast<std::int32_t>(t);
      out.push_back({.token_id = first + position, .position = {position, position, position}});
    }
    return out;
  }
  // A sequence from start to end. Returns the tokens that were reused.
  std::int64_t pass(std::vector<KvSlot> slots, const std::string& salt = "") {
    User user;
    user.salt = salt;
    user.slots = std::move(slots);
    start(user);
    compute(user, 1 << 20);
    cache_->prove(user.chain);
    cache_->release(user.chain);
    return user.reused;
  }

  std::vector<std::vector<Contents>> pool_;
  std::unique_ptr<PrefixCache> cache_;
};

TEST_F(PrefixCacheTest, WhatWasReleasedIsFoundToTheToken) {
  make(20);
  EXPECT_EQ(pass(text(100)), 0);
  EXPECT_EQ(cache_->available(), 20);
  EXPECT_EQ(cache_->cached(), 4);
  EXPECT_EQ(pass(text(100)), 99);  // the last token is always computed
  EXPECT_EQ(pass(text(150)), 100);
  EXPECT_EQ(pass(text(64)), 63);
  auto parting = text(100);
  parting[70].token_id = 999;
  EXPECT_EQ(pass(parting), 70);
  EXPECT_EQ(pass(parting), 99);
  EXPECT_EQ(pass(text(100)), 99);
}

TEST_F(PrefixCacheTest, SaltsFeaturesRowsAndPositionsAreCompared) {
  make(40);
  auto picture = text(100);
  for (std::int32_t row = 0; row < 50; ++row) {
    picture[static_cast<std::size_t>(10 + row)] = {
        .token_id = 7, .row = row, .position = {10, 10 + row / 5, 10 + row % 5}};
    picture[static_cast<std::size_t>(10 + row)].feature.digest.bytes.fill(1);
  }
  EXPECT_EQ(pass(picture, "tenant"), 0);
  EXPECT_EQ(pass(picture, "other"), 0);
  EXPECT_EQ(pass(picture, "tenant"), 99);
  auto other = picture;
  for (KvSlot& slot : other)
    if (slot.row >= 0) slot.feature.digest.bytes[5] = 2;
  EXPECT_EQ(pass(other, "tenant"), 10);
  auto shifted = picture;
  for (std::size_t t = 60; t < 100; ++t) shifted[t].position = {90, 90, static_cast<std::int32_t>(t)};
  EXPECT_EQ(pass(shifted, "tenant"), 60);
  auto cut = picture;
  cut[30].row = 21;
  EXPECT_EQ(pass(cut, "tenant"), 30);
}

TEST_F(PrefixCacheTest, TheLeastRecentlyUsedGoesFirstAndEndsBeforeBeginnings) {
  make(8);
  pass(text(96, 0));                 // 3 blocks
  pass(text(96, 1000));              // 3 more
  EXPECT_EQ(pass(text(96, 0)), 95);  // used again; copies a block
  pass(text(96, 2000));              // needs room: the second one's end
  EXPECT_EQ(cache_->available(), 8);
  const auto found = [&](std::int64_t count, std::int32_t first) {
    return cache_->match("", text(count, first)).tokens;
  };
  EXPECT_EQ(found(96, 0), 96);
  EXPECT_EQ(found(96, 2000), 96);
  EXPECT_EQ(found(96, 1000) % 32, 0);
  EXPECT_LT(found(96, 1000), 96);
  EXPECT_GT(found(96, 1000), 0);
}

TEST_F(PrefixCacheTest, ABlockThatIsBeingFilledIsCopied) {
  make(10);
  User first;
  first.slots = text(50);
  start(first);
  compute(first, 1 << 20);
  User second;
  second.slots = text(45);
  second.slots[41].token_id = 5;
  start(second);
  EXPECT_EQ(second.reused, 41);
  EXPECT_EQ(second.chain.block_table()[0], first.chain.block_table()[0]);
  EXPECT_NE(second.chain.block_table()[1], first.chain.block_table()[1]);
  cache_->release(first.chain);
  check(second);
  cache_->release(second.chain);
  EXPECT_EQ(cache_->available(), 10);
}

TEST_F(PrefixCacheTest, EqualBlocksComputedAtTheSameTimeBecomeOne) {
  make(10);
  User a, b;
  a.slots = b.slots = text(40);
  start(a);
  start(b);
  compute(a, 1 << 20);
  compute(b, 1 << 20);
  EXPECT_EQ(a.chain.block_table()[0], b.chain.block_table()[0]);
  EXPECT_EQ(cache_->available(), 7);
  cache_->release(a.chain);
  check(b);
  cache_->release(b.chain);
  EXPECT_EQ(cache_->available(), 10);
}

TEST_F(PrefixCacheTest, WithoutSharingNothingIsKept) {
  make(5, false);
  EXPECT_EQ(pass(text(100)), 0);
  EXPECT_EQ(pass(text(100)), 0);
  EXPECT_EQ(cache_->cached(), 0);
  EXPECT_EQ(cache_->available(), 5);
}

TEST_F(PrefixCacheTest, WhatAFailedSequenceComputedIsForgottenAndCleared) {
  make(6);
  pass(text(64));
  User bad;
  bad.slots = text(130);
  bad.poisoned = true;
  start(bad);
  EXPECT_EQ(bad.reused, 64);
  compute(bad, 1 << 20);
  User company;  // on the same blocks
  company.slots = text(130);
  company.slots[128].token_id = 5;
  start(company);
  EXPECT_EQ(company.reused, 128);
  cache_->discard(bad.chain);
  EXPECT_EQ(cache_->match("", text(130)).tokens, 64);  // what others have proven stays
  cache_->discard(company.chain);
  EXPECT_EQ(cache_->available(), 6);
  EXPECT_EQ(pass(text(130)), 64);  // check() looks for what is not finite
}

using PrefixCacheDeathTest = PrefixCacheTest;

TEST_F(PrefixCacheDeathTest, MoreThanThereIsIsOurBug) {
  make(1);
  User user;
  user.slots = text(33);
  start(user);
  EXPECT_DEATH(cache_->grow(user.chain, 33), "CHECK");
  cache_->release(user.chain);
}

// Sequences over a small alphabet come, compute, generate, leave and fail in any order: what is reused is always what
// would have been computed, nothing that is not finite reaches others, no block is lost.
TEST_F(PrefixCacheTest, AnyOrderOfEventsKeepsContentsAndCounts) {
  std::int64_t reused = 0, evicting = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t n) { return static_cast<std::int64_t>(random() % n); };
    make(4 + below(24), seed % 10 != 0);
    std::deque<std::unique_ptr<User>> users;
    for (int event = 0; event < 1500; ++event) {
      const std::int64_t what = below(10);
      if (what < 3 && users.size() < 6) {
        auto user = std::make_unique<User>();
        user->salt = below(4) == 0 ? "b" : "a";
        std::int32_t token = 0;
        for (std::int64_t t = 0, size = 1 + below(120); t < size; ++t) {
          if (below(25) == 0) token = static_cast<std::int32_t>(below(2));
          user->slots.push_back({.token_id = token, .position = {static_cast<std::int32_t>(t), 0, 0}});
        }
        user->poisoned = below(8) == 0;
        if (kv_blocks_for(static_cast<std::int64_t>(user->slots.size())) > cache_->available()) continue;
        const bool full = cache_->available() == cache_->cached();
        start(*user);
        reused += user->reused;
        evicting += full ? 1 : 0;
        users.push_back(std::move(user));
      } else if (!users.empty()) {
        const auto index = static_cast<std::size_t>(below(static_cast<std::uint32_t>(users.size())));
        User& user = *users[index];
        const std::int64_t left = static_cast<std::int64_t>(user.slots.size()) - user.computed;
        if (what < 8) {
          const std::int64_t tokens = std::min(left, 1 + below(50));
          if (kv_blocks_for(user.computed + tokens) - user.chain.blocks() > cache_->available()) continue;
          compute(user, tokens);
          if (user.computed < static_cast<std::int64_t>(user.slots.size())) continue;
          if (sees_finite(user)) {
            cache_->prove(user.chain);
            const auto position = static_cast<std::int32_t>(user.slots.size());
            user.slots.push_back({.token_id = static_cast<std::int32_t>(below(2)), .position = {position, 0, 0}});
            continue;
          }
          cache_->discard(user.chain);
        } else {
          cache_->release(user.chain);
        }
        users.erase(users.begin() + static_cast<std::ptrdiff_t>(index));
      }
      if (HasFatalFailure()) return;
      std::vector<bool> seen(pool_.size(), false);
      std::int64_t held = 0;
      for (const auto& user : users) held += PrefixCache::count_new(user->chain, seen);
      ASSERT_EQ(held + cache_->available(), cache_->blocks());
    }
    for (const auto& user : users) cache_->release(user->chain);
    ASSERT_EQ(cache_->available(), cache_->blocks());
  }
  EXPECT_GT(reused, 50000);
  EXPECT_GT(evicting, 1000);
}

}  // namespace
}  // namespace chiasm
