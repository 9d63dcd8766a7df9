#include "kernels/attention_cpu.h"

#include <algorithm>
#include <limits>

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "kernels/exp_cpu-inl.h"
#include "kernels/tile_cpu-inl.h"
#include "kernels/turn_cpu-inl.h"
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

// Of each query the highest score so far and the sum of the weights, exp(score - highest).
struct Softmax {
  alignas(64) float highest[kQueryTile];
  alignas(64) float sum[kQueryTile];
  // What the sums so far must be multiplied by where the last tile of keys had a higher score.
  alignas(64) float correction[kQueryTile];

  Softmax() {
    std::fill_n(highest, kQueryTile, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, kQueryTile, 0.0F);
  }
};

// The highest of a query's scores with `keys` keys. Those from `visible` on become -infinity.
float highest_score(float* scores, std::int64_t keys, std::int64_t visible) {
  const F32 d;
  for (std::int64_t j = std::max<std::int64_t>(visible, 0); j < keys; ++j)
    scores[j] = -std::numeric_limits<float>::infinity();
  VF32 top = hn::LoadU(d, scores);
  for (std::int64_t j = kLanes; j < keys; j += kLanes) top = hn::Max(top, hn::LoadU(d, scores + j));
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

// Turns scores [rows][kKeyTile] of a tile of keys, `first` the number of its first, into weights. Keys that a query may
// not see get the weight 0.
void absorb(float* scores, std::int64_t keys, std::int64_t first, const QueryTile& rows, Softmax& state) {
  const F32 d;
  alignas(64) float highest[kQueryTile];
  std::copy_n(state.highest, kQueryTile, highest);
  for (std::int64_t i = 0; i < rows.count; ++i)
    highest[i] = std::max(highest[i], highest_score(scores + i * kKeyTile, keys, rows.visible[i] - first));
  for (std::int64_t i = 0; i < rows.count; i += kLanes) {
    const VF32 before = hn::Load(d, state.highest + i), now = hn::Load(d, highest + i);
    const VF32 factor = hn::IfThenElse(hn::Eq(before, now), hn::Set(d, 1.0F), exp_up_to_88(hn::Sub(before, now)));
    hn::Store(factor, d, state.correction + i);
    hn::Store(hn::Mul(hn::Load(d, state.sum + i), factor), d, state.sum + i);
    hn::Store(now, d, state.highest + i);
  }
  for (std::int64_t i = 0; i < rows.count; ++i) {
    float* const row = scores + i * kKeyTile;
    const VF32 shift = hn::Set(d, highest[i]);
    VF32 sum = hn::Zero(d);
    for (std::int64_t j = 0; j < keys; j += kLanes) {
      const VF32 weight = exp_up_to_88(hn::Sub(hn::LoadU(d, row + j), shift));
      hn::StoreU(weight, d, row + j);
      sum = hn::Add(sum, weight);
    }
    state.sum[i] += hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// out = row * factor. Both may be the same.
void scale_row(const float* row, std::int64_t count, float factor, float* out) {
  const F32 d;
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) hn::StoreU(hn::Mul(hn::LoadU(d, row + j), hn::Set(d, factor)), d, out + j);
  for (; j < count; ++j) out[j] = row[j] * factor;
}

void attend(const QueryTile& rows, std::span<const KeyValueBlock> blocks, std::int64_t head_dim, float scale) {
  const std::int64_t width = padded_head_dim(head_dim), count = rows.count;
  static thread_local std::vector<float> memory;
  memory.resize(static_cast<std::size_t>(kQueryTile * (head_dim + width + kKeyTile)));
  float* queries = memory.data();                 // [head_dim][kQueryTile]
  float* sums = queries + kQueryTile * head_dim;  // [kQueryTile][width]
  float* scores = sums + kQueryTile * width;      // [kQueryTile][kKeyTile]
  Softmax state;

  turn_rows(count, [&](std::int64_t i) { return rows.query[i]; }, head_dim, kQueryTile, queries);
  for (std::int64_t k = 0; k < head_dim; ++k)
    scale_row(queries + k * kQueryTile, count, scale, queries + k * kQueryTile);
  const std::int64_t visible = *std::max_element(rows.visible, rows.visible + count);
  for (std::int64_t first = 0; first < visible; first += kKeyTile) {
    const std::int64_t last = std::min(first + kKeyTile, (visible + kKvBlock - 1) / kKvBlock * kKvBlock);
    for (std::int64_t key = first; key < last; key += kKvBlock)
      product<kQueryTile, 1>(count, kKvBlock, head_dim, queries, KeyBlock{blocks[key / kKvBlock].keys}, kKvBlock,
                             scores + (key - first), kKeyTile, false);
    absorb(scores, last - first, first, rows, state);
    for (std::int64_t i = 0; first > 0 && i < count; ++i)
      if (state.correction[i] != 1.0F) scale_row(sums + i * width, width, state.correction[i], sums + i * width);
    // A row whose keys ended before this tile has only zero weights here: its sums stay as they are.
    const ValueBlocks values{&blocks[first / kKvBlock], static_cast<int>((last - first) / kKvBlock)};
    product<1, kKeyTile>(count, width, kKvBlock, scores, values, width, sums, width, first > 0);
  }
  for (std::int64_t i = 0; i < count; ++i) scale_row(sums + i * width, head_dim, 1.0F / state.sum[i], rows.out[i]);
}

void pack_block(ConstMatrixView keys, ConstMatrixView values, float* packed_keys, float* packed_values) {
  const std::int64_t head_dim = keys.cols, width = padded_head_dim(head_dim);
  turn_rows(keys.rows, [&](std::int64_t t) { return keys.row(t); }, head_dim, kKvBlock, packed_keys);
  if (keys.rows < kKvBlock)
    for (std::int64_t k = 0; k < head_dim; ++k)
      std::fill(packed_keys + k * kKvBlock + keys.rows, packed_keys + (k + 1) * kKvBlock, 0.0F);
  for (std::int64_t t = 0; t < kKvBlock; ++t) {
    float* const value = packed_values + t * width;
    const std::int64_t there = t < keys.rows ? head_dim : 0;
    std::copy_n(values.row(t), there, value);
    std::fill(value + there, value + width, 0.0F);
  }
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {

HWY_EXPORT(attend);
HWY_EXPORT(pack_block);

void attend_cpu(const QueryTile& tile, std::span<const KeyValueBlock> blocks, std::int64_t head_dim, float scale) {
  HWY_DYNAMIC_DISPATCH(attend)(tile, blocks, head_dim, scale);
}

void pack_block_cpu(ConstMatrixView keys, ConstMatrixView values, float* packed_keys, float* packed_values) {
  HWY_DYNAMIC_DISPATCH(pack_block)(keys, values, packed_keys, packed_values);
}

}  // namespace chiasm
#endif  // HWY_ONCE
