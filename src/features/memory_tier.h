// Features in memory: a byte budget, least recently used first out.
//
// Thread contract: every method may be called from any thread. What get() gave stays alive after eviction.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "features/feature.h"

namespace chiasm {

struct MemoryTierCounters {
  std::uint64_t hits = 0, misses = 0;
  std::uint64_t evictions = 0;
  std::uint64_t erased = 0;
  std::uint64_t refused = 0;             // larger than the whole budget
  std::uint64_t entries = 0, bytes = 0;  // now
};

class MemoryTier {
 public:
  // `budget` bytes of rows and bookkeeping; 0 keeps nothing.
  explicit MemoryTier(std::uint64_t budget) : budget_(budget) {}

  std::shared_ptr<const Feature> get(const FeatureId& id);  // null: a miss
  void put(std::shared_ptr<const Feature> feature);         // replaces what has the same id
  bool holds(const FeatureId& id) const;                    // neither a use nor a hit
  bool erase(const FeatureId& id);                          // false: nothing was kept under it
  MemoryTierCounters counters() const;
  std::uint64_t budget() const { return budget_; }

  // What an entry counts against the budget.
  static std::uint64_t cost(const Feature& feature);

 private:
  using Order = std::list<std::shared_ptr<const Feature>>;  // most recently used first
  void drop(Order::iterator entry, Order& dropped);

  const std::uint64_t budget_;
  mutable std::mutex mutex_;
  Order order_;
  std::unordered_map<FeatureId, Order::iterator> entries_;
  MemoryTierCounters counters_;
};

}  // namespace chiasm
