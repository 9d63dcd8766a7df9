#include "fleet/rendezvous.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "features/test_features.h"

namespace chiasm {
namespace {

constexpr int kIds = 4000;

std::vector<std::string> names(int count) {
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) out.push_back(fmt::format("http://host-{}:9001", i));
  return out;
}

FeatureId id_of(int seed) { return sample_key(seed).id; }

std::vector<std::string> ordered(const FeatureId& id, const std::vector<std::string>& servers) {
  std::vector<std::string> out;
  for (const std::size_t i : rendezvous_order(id, servers)) out.push_back(servers[i]);
  return out;
}

TEST(Rendezvous, OrdersEveryServerOnceAndTheSameInAnyList) {
  std::vector<std::string> servers = names(5);
  for (int seed = 0; seed < 50; ++seed) {
    const auto order = ordered(id_of(seed), servers);
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, names(5));
    std::vector<std::string> reversed(servers.rbegin(), servers.rend());
    EXPECT_EQ(ordered(id_of(seed), reversed), order);
  }
  EXPECT_TRUE(rendezvous_order(id_of(0), {}).empty());
}

// Every language server, of whatever version, must come to the same choice. Values: xxhsum -H3 (0.8.1) of the 32 bytes
// followed by the name.
TEST(Rendezvous, WeightsAreFixed) {
  FeatureId id;
  for (std::size_t i = 0; i < id.digest.bytes.size(); ++i) id.digest.bytes[i] = static_cast<std::uint8_t>(i);
  EXPECT_EQ(rendezvous_weight(id, ""), 0x3523581fe96e4c05U);
  EXPECT_EQ(rendezvous_weight(id, "http://host-a:9001"), 0x8bfbd21119eecfe4U);
}

TEST(Rendezvous, SharesAreEven) {
  const auto servers = names(4);
  std::map<std::string, int> first, second;
  for (int seed = 0; seed < kIds; ++seed) {
    const auto order = ordered(id_of(seed), servers);
    ++first[order[0]];
    if (order[0] == servers[0]) ++second[order[1]];
  }
  // Binomial: the mean is 1000 with a standard deviation of 27.4; five of these.
  for (const auto& name : servers) EXPECT_NEAR(first[name], kIds / 4.0, 137) << name;
  // When one fails its share goes to all others alike: about 333 each, deviation 14.9.
  EXPECT_EQ(second.size(), 3U);
  for (const auto& [name, count] : second) EXPECT_NEAR(count, first[servers[0]] / 3.0, 75) << name;
}

TEST(Rendezvous, AServerThatLeavesMovesOnlyItsShare) {
  const auto servers = names(5);
  auto fewer = servers;
  fewer.erase(fewer.begin() + 2);
  for (int seed = 0; seed < kIds; ++seed) {
    auto before = ordered(id_of(seed), servers);
    const auto after = ordered(id_of(seed), fewer);
    std::erase(before, servers[2]);
    ASSERT_EQ(before, after) << "the order of the others changed";
  }
}

TEST(Rendezvous, AServerThatJoinsTakesOnlyItsShare) {
  const auto servers = names(5);
  auto more = servers;
  more.insert(more.begin(), "http://new:9001");
  int moved = 0;
  for (int seed = 0; seed < kIds; ++seed) {
    const auto before = ordered(id_of(seed), servers)[0], after = ordered(id_of(seed), more)[0];
    if (after == "http://new:9001") {
      ++moved;
    } else {
      ASSERT_EQ(before, after);
    }
  }
  EXPECT_NEAR(moved, kIds / 6.0, 118);  // deviation 23.6
}

}  // namespace
}  // namespace chiasm
