// The inner loop under every product: a tile of MR rows and NV vectors of columns, summed over k in order.
//
// Every element of C is one chain of fused multiply-adds from k = 0 up, whatever MR, NV or the vector width: that is
// what makes results independent of how many rows are computed together (see the row contract in ops.h).
// Included once per Highway target.
#if defined(CHIASM_KERNELS_TILE_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CHIASM_KERNELS_TILE_CPU_INL_H_
#undef CHIASM_KERNELS_TILE_CPU_INL_H_
#else
#define CHIASM_KERNELS_TILE_CPU_INL_H_
#endif

#include <cstdint>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;  // one vector, at most 16 lanes
using VF32 = hn::Vec<F32>;
constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(F32()));

// Rows of the tallest tile: as many accumulators as the register file holds beside two columns and a broadcast.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif

HWY_INLINE VF32 load_f32(const hwy::bfloat16_t* p) {
  return hn::PromoteTo(F32(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, F32>(), p));
}

// The operand whose rows are summed: `depth` rows of it, or several such blocks that lie apart, one after the other.
struct OneBlock {
  const float* b;
  int count() const { return 1; }
  const float* block(int) const { return b; }
};

// acc += row * column. gcc 12 would load a column once for each row, as an operand of the product, and exchange sums
// and products of unrolled steps: what the loop waits for on AVX2 are loads and the number of instructions.
HWY_INLINE void add_product(VF32 row, VF32 column, VF32& acc) {
#if HWY_TARGET == HWY_AVX2
  asm("vfmadd231ps %2, %1, %0" : "+x"(acc.raw) : "x"(row.raw), "x"(column.raw));
#else
  acc = hn::MulAdd(row, column, acc);
#endif
}

// Steps of a tile in one turn of its loop.
#if HWY_TARGET == HWY_AVX2
constexpr std::int64_t kUnrolled = 4;
#else
constexpr std::int64_t kUnrolled = 1;
#endif

// What a tile fetches into the cache on its way, a line every kFetchSteps steps.
constexpr std::int64_t kFetchSteps = 4;
struct FetchNothing {
  static constexpr bool kActive = false;
  void next() {}
};

// acc (+)= one step of a tile.
template <int MR, int NV, std::int64_t Row>
HWY_INLINE void tile_step(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, VF32 (&acc)[MR][NV]) {
  const F32 d;
  VF32 column[NV];
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) column[j] = hn::LoadU(d, b + j * kLanes);
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    const VF32 row = hn::Set(d, a[i * Row]);
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) add_product(row, column[j], acc[i][j]);
  }
}

// c[i][0 .. NV vectors) (+)= sum over k of a[k * Step + i * Row] * b[k * ldb ..], k over `depth` rows of each block.
template <int MR, int NV, std::int64_t Step, std::int64_t Row, class Blocks, class Fetch>
HWY_NOINLINE void tile(std::int64_t depth, const float* HWY_RESTRICT a, const Blocks& blocks, std::int64_t ldb,
                       float* HWY_RESTRICT c, std::int64_t ldc, bool accumulate, Fetch& fetch) {
  const F32 d;
  VF32 acc[MR][NV];
  if (accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = hn::LoadU(d, c + i * ldc + j * kLanes);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = hn::Zero(d);
  }
  for (int block = 0; block < blocks.count(); ++block) {
    const float* HWY_RESTRICT b = blocks.block(block);
    const std::int64_t whole = depth / kUnrolled * kUnrolled;
    for (std::int64_t k = 0; k < whole; k += kUnrolled) {
      if (Fetch::kActive && k % kFetchSteps == 0) fetch.next();
#pragma GCC unroll 4
      for (std::int64_t i = k; i < k + kUnrolled; ++i) tile_step<MR, NV, Row>(a + i * Step, b + i * ldb, acc);
    }
    for (std::int64_t k = whole; k < depth; ++k) tile_step<MR, NV, Row>(a + k * Step, b + k * ldb, acc);
    a += depth * Step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) hn::StoreU(acc[i][j], d, c + i * ldc + j * kLanes);
}

// A tile of `height` rows, 1 to kTileRows. Step 0: a is packed, [k][height].
template <int NV, std::int64_t Step, std::int64_t Row, int MR = kTileRows, class Blocks, class Fetch>
HWY_INLINE void tile_of_height(int height, std::int64_t depth, const float* a, const Blocks& blocks, std::int64_t ldb,
                               float* c, std::int64_t ldc, bool accumulate, Fetch& fetch) {
  if (height == MR) {
    tile<MR, NV, Step == 0 ? MR : Step, Row>(depth, a, blocks, ldb, c, ldc, accumulate, fetch);
  } else if constexpr (MR > 1) {
    tile_of_height<NV, Step, Row, MR - 1>(height, depth, a, blocks, ldb, c, ldc, accumulate, fetch);
  }
}

// The tile height to use when `rows` are left: the tallest of some heights that fits.
HWY_INLINE int tile_rows(std::int64_t rows) {
  if (rows >= kTileRows) return kTileRows;
  return rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

// The height of the next tile when `rows` are left: as few tiles as can be, of about the same height.
HWY_INLINE int tile_height(std::int64_t rows) {
  const std::int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  return static_cast<int>((rows + tiles - 1) / tiles);
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CHIASM_KERNELS_TILE_CPU_INL_H_
