// A table of plain values, each kept once under a small number; the newest can be given back.
//
// Thread contract: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

namespace chiasm {

template <class T>
class InternTable {
  static_assert(std::has_unique_object_representations_v<T>, "values are compared and hashed by their bytes");

 public:
  static constexpr std::uint32_t kAbsent = 0xFFFFFFFF;

  std::uint32_t size() const { return static_cast<std::uint32_t>(values_.size()); }
  const T& operator[](std::uint32_t id) const { return values_[id]; }

  std::uint32_t find(const T& value) const { return slots_.empty() ? kAbsent : slots_[slot_of(value)]; }

  std::uint32_t add(const T& value) {
    if (2 * (values_.size() + 1) > slots_.size()) grow();
    const std::size_t slot = slot_of(value);
    if (slots_[slot] == kAbsent) {
      slots_[slot] = size();
      values_.push_back(value);
    }
    return slots_[slot];
  }

  // Forgets what was added since there were `count` values. The newest goes first: no other value was placed because
  // of it, so its slot can simply be emptied.
  void shrink(std::uint32_t count) {
    while (size() > count) {
      slots_[slot_of(values_.back())] = kAbsent;
      values_.pop_back();
    }
  }

 private:
  std::size_t slot_of(const T& value) const {
    std::size_t slot =
        std::hash<std::string_view>()({reinterpret_cast<const char*>(&value), sizeof(T)}) & (slots_.size() - 1);
    while (slots_[slot] != kAbsent && std::memcmp(&values_[slots_[slot]], &value, sizeof(T)) != 0)
      slot = (slot + 1) & (slots_.size() - 1);
    return slot;
  }

  void grow() {
    slots_.assign(slots_.empty() ? 64 : 2 * slots_.size(), kAbsent);
    for (std::uint32_t id = 0; id < size(); ++id) slots_[slot_of(values_[id])] = id;
  }

  std::vector<T> values_;
  std::vector<std::uint32_t> slots_;  // open addressing; a power of two, at most half full
};

}  // namespace chiasm
