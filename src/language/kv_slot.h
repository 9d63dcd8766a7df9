// What the keys and values of one token are a function of, beside the tokens before it: the key of the prefix cache.
//
// Positions are part of it although ids and features nearly always fix them: two prompts share a block only when
// nothing that went into it differs. Thread contract: a value.
#pragma once

#include <array>
#include <compare>
#include <cstdint>

#include "features/feature.h"

namespace chiasm {

struct KvSlot {
  std::int32_t token_id = 0;
  std::int32_t row = -1;  // of the feature that stands here; -1: none does
  std::array<std::int32_t, 3> position{};
  FeatureId feature;  // all zero where none stands

  bool operator==(const KvSlot&) const = default;
  std::strong_ordering operator<=>(const KvSlot& other) const {
    if (const auto by_token = token_id <=> other.token_id; by_token != 0) return by_token;
    if (const auto by_row = row <=> other.row; by_row != 0) return by_row;
    if (const auto by_position = position <=> other.position; by_position != 0) return by_position;
    return row < 0 ? std::strong_ordering::equal : feature <=> other.feature;
  }
};

}  // namespace chiasm
