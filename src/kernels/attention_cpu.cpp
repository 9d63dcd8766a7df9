#include "kernels/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "kernels/tile_cpu-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

// The values of some blocks of keys, from column j on: one operand of `blocks` * kKvBlock rows.
struct ValueBlocks {
  const KeyValueBlock* blocks;
  int size;
  std::int64_t column = 0;
  int count() const { return size; }
  const float* block(int i) const { return blocks[i].values + column; }
  ValueBlocks from(std::int64_t j) const { return {blocks, size, column + j}; }
};

struct KeyBlock {
  const float* keys;
  int count() const { return 1; }
  const float* block(int) const { return keys; }
  KeyBlock from(std::int64_t j) const { return {keys + j}; }
};

// c [rows, cols] (+)= a * b, `depth` rows of each of b's blocks [depth, cols]; cols is a multiple of one vector. a is
// read at a[k * Step + i * Row].
template <std::int64_t Step, std::int64_t Row, class Blocks>
void product(std::int64_t rows, std::int64_t cols, std::int64_t depth, const float* a, const Blocks& b,
             std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  FetchNothing nothing;
  std::int64_t j = 0;
  for (; j + 2 * kLanes <= cols; j += 2 * kLanes)
    for (std::int64_t i = 0; i < rows; i += tile_height(rows - i))
      tile_of_height<2, Step, Row>(tile_height(rows - i), depth, a + i * Row, b.from(j), ldb, c + i * ldc + j, ldc,
                                   accumulate, nothing);
  for (; j < cols; j += kLanes)
    for (std::int64_t i = 0; i < rows; i += tile_height(rows - i))
      tile_of_height<1, Step, Row>(tile_height(rows - i), depth, a + i * Row, b.from(j), ldb, c + i * ldc + j, ldc,
                                   accumulate, nothing);
}

struct Softmax {
  float highest = -std::numeric_limits<float>::infinity();
  float sum = 0.0F;
};

// Turns one row of scores into weights exp(score - highest) and returns what the sums so far must be multiplied by.
// Keys from `visible` on get the weight 0.
float absorb(float* scores, std::int64_t keys, std::int64_t visible, Softmax& state) {
  const F32 d;
  for (std::int64_t j = std::max<std::int64_t>(visible, 0); j < keys; ++j)
    scores[j] = -std::numeric_limits<float>::infinity();
  VF32 top = hn::LoadU(d, scores);
  for (std::int64_t j = kLanes; j < keys; j += kLanes) top = hn::Max(top, hn::LoadU(d, scores + j));
  const float highest = std::max(state.highest, hn::GetLane(hn::MaxOfLanes(d, top)));
  const VF32 shift = hn::Set(d, highest);
  VF32 sum = hn::Zero(d);
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const VF32 weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + j), shift));
    hn::StoreU(weight, d, scores + j);
    sum = hn::Add(sum, weight);
  }
  const float correction = state.highest == highest ? 1.0F : std::exp(state.highest - highest);
  state.sum = state.sum * correction + hn::GetLane(hn::SumOfLanes(d, sum));
  state.highest = highest;
  return correction;
}

void scale_row(float* row, std::int64_t count, float factor) {
  const F32 d;
  for (std::int64_t j = 0; j < count; j += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, row + j), hn::Set(d, factor)), d, row + j);
}

void attend(const QueryTile& rows, std::span<const KeyValueBlock> blocks, std::int64_t head_dim, float scale) {
  const std::int64_t width = padded_head_dim(head_dim), count = rows.count;
  static thread_local std::vector<float> memory;
  memory.resize(static_cast<std::size_t>(kQueryTile * (head_dim + width + kKeyTile)));
  float* queries = memory.data();                 // [head_dim][kQueryTile]
  float* sums = queries + kQueryTile * head_dim;  // [kQueryTile][width]
  float* scores = sums + kQueryTile * width;      // [kQueryTile][kKeyTile]
  Softmax state[kQueryTile];

  std::int64_t visible = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t k = 0; k < head_dim; ++k) queries[k * kQueryTile + i] = rows.query[i][k] * scale;
    visible = std::max(visible, rows.visible[i]);
  }
  for (std::int64_t first = 0; first < visible; first += kKeyTile) {
    const std::int64_t last = std::min(first + kKeyTile, (visible + kKvBlock - 1) / kKvBlock * kKvBlock);
    for (std::int64_t key = first; key < last; key += kKvBlock)
      product<kQueryTile, 1>(count, kKvBlock, head_dim, queries, KeyBlock{blocks[key / kKvBlock].keys}, kKvBlock,
                             scores + (key - first), kKeyTile, false);
    for (std::int64_t i = 0; i < count; ++i) {
      const float correction = absorb(scores + i * kKeyTile, last - first, rows.visible[i] - first, state[i]);
      if (first > 0 && correction != 1.0F) scale_row(sums + i * width, width, correction);
    }
    // A row whose keys ended before this tile has only zero weights here: its sums stay as they are.
    const ValueBlocks values{&blocks[first / kKvBlock], static_cast<int>((last - first) / kKvBlock)};
    product<1, kKeyTile>(count, width, kKvBlock, scores, values, width, sums, width, first > 0);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const float inverse = 1.0F / state[i].sum;
    for (std::int64_t k = 0; k < head_dim; ++k) rows.out[i][k] = sums[i * width + k] * inverse;
  }
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {

HWY_EXPORT(attend);

void attend_cpu(const QueryTile& tile, std::span<const KeyValueBlock> blocks, std::int64_t head_dim, float scale) {
  HWY_DYNAMIC_DISPATCH(attend)(tile, blocks, head_dim, scale);
}

void pack_block_cpu(ConstMatrixView keys, ConstMatrixView values, float* packed_keys, float* packed_values) {
  const std::int64_t head_dim = keys.cols, width = padded_head_dim(head_dim);
  for (std::int64_t t = 0; t < kKvBlock; ++t) {
    const bool there = t < keys.rows;
    for (std::int64_t k = 0; k < head_dim; ++k) packed_keys[k * kKvBlock + t] = there ? keys.row(t)[k] : 0.0F;
    float* value = packed_values + t * width;
    if (there) std::memcpy(value, values.row(t), static_cast<std::size_t>(head_dim) * sizeof(float));
    std::fill(value + (there ? head_dim : 0), value + width, 0.0F);
  }
}

}  // namespace chiasm
#endif  // HWY_ONCE
