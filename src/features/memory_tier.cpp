#include "features/memory_tier.h"

#include <utility>

namespace chiasm {

std::uint64_t MemoryTier::cost(const Feature& feature) {
  constexpr std::uint64_t kBookkeeping = 512;  // metadata, list and table nodes
  return static_cast<std::uint64_t>(feature.rows.size()) * sizeof(float) + feature.meta.model.size() +
         feature.meta.arithmetic.size() + kBookkeeping;
}

std::shared_ptr<const Feature> MemoryTier::get(const FeatureId& id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) {
    ++counters_.misses;
    return nullptr;
  }
  ++counters_.hits;
  order_.splice(order_.begin(), order_, it->second);
  return *it->second;
}

void MemoryTier::put(std::shared_ptr<const Feature> feature) {
  const std::uint64_t bytes = cost(*feature);
  const FeatureId id = feature->meta.id;
  Order dropped;  // freed after the lock: rows are large
  const std::lock_guard lock(mutex_);
  if (const auto it = entries_.find(id); it != entries_.end()) drop(it->second, dropped);
  if (bytes > budget_) {
    ++counters_.refused;
    return;
  }
  while (counters_.bytes + bytes > budget_) {
    drop(std::prev(order_.end()), dropped);
    ++counters_.evictions;
  }
  order_.push_front(std::move(feature));
  entries_.emplace(id, order_.begin());
  counters_.bytes += bytes;
  counters_.entries = entries_.size();
}

bool MemoryTier::holds(const FeatureId& id) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(id);
}

bool MemoryTier::erase(const FeatureId& id) {
  Order dropped;  // freed after the lock
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return false;
  drop(it->second, dropped);
  ++counters_.erased;
  return true;
}

void MemoryTier::drop(Order::iterator entry, Order& dropped) {
  counters_.bytes -= cost(**entry);
  entries_.erase((*entry)->meta.id);
  dropped.splice(dropped.end(), order_, entry);
  counters_.entries = entries_.size();
}

MemoryTierCounters MemoryTier::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace chiasm
