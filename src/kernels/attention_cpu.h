// Tiled attention on the CPU with a running softmax: scores exist for one tile of rows and keys at a time.
// Used by ops_cpu.cpp only; shapes as in ops.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace chiasm {

// Keys are walked in tiles of kKeyTile from the start of a segment or sequence, whatever row asks: a row's sums run in
// the same order alone and in company.
inline constexpr std::int64_t kKeyTile = 128;
inline constexpr std::int64_t kQueryTile = 48;
static_assert(kKeyTile % kKvBlock == 0);

// Head dimensions are padded with zeros to whole vectors in every buffer of values.
constexpr std::int64_t padded_head_dim(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Keys of 32 tokens as [head_dim][32], values of 32 tokens as [32][padded head_dim].
struct KeyValueBlock {
  const float* keys = nullptr;
  const float* values = nullptr;
};

// Up to kQueryTile queries that walk over the same keys.
struct QueryTile {
  const float* query[kQueryTile];    // [head_dim] each
  float* out[kQueryTile];            // [head_dim] each
  std::int64_t visible[kQueryTile];  // how many keys, from the first one, each may see; at least 1
  std::int64_t count = 0;
};

// out = softmax(scale * query . key) value over the first `visible` keys of `blocks`.
void attend_cpu(const QueryTile& tile, std::span<const KeyValueBlock> blocks, std::int64_t head_dim, float scale);

// Stores up to 32 keys and values [count, head_dim] as a block; the places after `count` become zeros.
void pack_block_cpu(ConstMatrixView keys, ConstMatrixView values, float* packed_keys, float* packed_values);

}  // namespace chiasm
