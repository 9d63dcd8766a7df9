#include "kernels/gemm_cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "kernels/epilogue_cpu-inl.h"
#include "kernels/tile_cpu-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

// Blocks of x: kBlockRows x kBlockDepth floats stay in L2 while the panels of a task pass by.
constexpr std::int64_t kBlockRows = 144, kBlockDepth = 512, kTaskPanels = 8;

// Four rows of `depth` floats, `stride` apart, as columns: out[k * height + r].
HWY_INLINE void turn_four_rows(const float* from, std::int64_t stride, std::int64_t depth, std::int64_t height,
                               float* out) {
  std::int64_t k = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  for (; k + 4 <= depth; k += 4) {
    const auto r0 = hn::LoadU(d, from + k), r1 = hn::LoadU(d, from + stride + k);
    const auto r2 = hn::LoadU(d, from + 2 * stride + k), r3 = hn::LoadU(d, from + 3 * stride + k);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
    float* to = out + k * height;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + height);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * height);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * height);
  }
#endif
  for (; k < depth; ++k)
    for (std::int64_t r = 0; r < 4; ++r) out[k * height + r] = from[r * stride + k];
}

// x[rows][k0 .. k0 + depth) as tiles of [k][tile rows], tile after tile.
void pack_rows(ConstMatrixView x, std::int64_t k0, std::int64_t depth, float* out) {
  for (std::int64_t i = 0; i < x.rows;) {
    const int height = tile_rows(x.rows - i);
    int r = 0;
    for (; r + 4 <= height; r += 4) turn_four_rows(x.row(i + r) + k0, x.stride, depth, height, out + r);
    for (; r < height; ++r) {
      const float* from = x.row(i + r) + k0;
      for (std::int64_t k = 0; k < depth; ++k) out[k * height + r] = from[k];
    }
    out += depth * height;
    i += height;
  }
}

template <class B>
HWY_INLINE void tile_of_height(int height, std::int64_t depth, const float* a, const B* b, float* c, std::int64_t ldc,
                               bool accumulate) {
  constexpr int kVectors = 2;
  for (std::int64_t j = 0; j < kPanel; j += kVectors * kLanes) {
    switch (height) {
      case kTileRows: tile<kTileRows, kVectors, kTileRows, 1>(depth, a, b + j, kPanel, c + j, ldc, accumulate); break;
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
      case 8: tile<8, kVectors, 8, 1>(depth, a, b + j, kPanel, c + j, ldc, accumulate); break;
#endif
      case 4: tile<4, kVectors, 4, 1>(depth, a, b + j, kPanel, c + j, ldc, accumulate); break;
      case 2: tile<2, kVectors, 2, 1>(depth, a, b + j, kPanel, c + j, ldc, accumulate); break;
      default: tile<1, kVectors, 1, 1>(depth, a, b + j, kPanel, c + j, ldc, accumulate); break;
    }
  }
}

// One panel's strip of `depth` x 32 elements as f32.
template <class B>
void widen(const B* from, std::int64_t depth, float* out) {
  const F32 d;
  for (std::int64_t i = 0; i < depth * kPanel; i += kLanes) hn::StoreU(load_f32(from + i), d, out + i);
}

struct Scratch {
  std::vector<float> rows, sums;
  float strip[kBlockDepth * kPanel];
};

// All rows of a packed block times one strip of one panel.
template <class B>
void multiply_strip(std::int64_t rows, std::int64_t depth, const float* a, const B* b, float* c, std::int64_t ldc,
                    bool accumulate) {
  for (std::int64_t i = 0; i < rows;) {
    const int height = tile_rows(rows - i);
    tile_of_height(height, depth, a, b, c + i * ldc, ldc, accumulate);
    a += depth * height;
    i += height;
  }
}

// Sums of x [rows, K] with panels [first, last) into scratch.sums [rows][(last - first) * kPanel].
template <class B>
HWY_NOINLINE void multiply(ConstMatrixView x, const PackedWeight& weight, std::int64_t first, std::int64_t last,
                           Scratch& scratch) {
  const std::int64_t total = weight.in_features(), ldc = (last - first) * kPanel;
  scratch.rows.resize(static_cast<std::size_t>(x.rows * std::min(total, kBlockDepth)));
  for (std::int64_t k0 = 0; k0 < total; k0 += kBlockDepth) {
    const std::int64_t depth = std::min(kBlockDepth, total - k0);
    pack_rows(x, k0, depth, scratch.rows.data());
    for (std::int64_t p = first; p < last; ++p) {
      const B* b = reinterpret_cast<const B*>(weight.panel(p)) + k0 * kPanel;
      float* c = scratch.sums.data() + (p - first) * kPanel;
      if (sizeof(B) < sizeof(float) && x.rows > 2 * kTileRows) {  // widening once pays from the third tile on
        widen(b, depth, scratch.strip);
        multiply_strip(x.rows, depth, scratch.rows.data(), scratch.strip, c, ldc, k0 > 0);
      } else {
        multiply_strip(x.rows, depth, scratch.rows.data(), b, c, ldc, k0 > 0);
      }
    }
  }
}

// Rows x of the output for panels [first, last).
void gemm_block(ConstMatrixView x, const PackedWeight& weight, std::int64_t first, std::int64_t last,
                const Epilogue& epilogue, MatrixView out) {
  static thread_local Scratch scratch;  // kept from call to call: at most kBlockRows x (kBlockDepth + task columns)
  const std::int64_t width = (last - first) * kPanel;
  scratch.sums.resize(static_cast<std::size_t>(x.rows * width));
  switch (weight.dtype()) {
    case DType::kBF16: multiply<hwy::bfloat16_t>(x, weight, first, last, scratch); break;
    case DType::kF16: multiply<hwy::float16_t>(x, weight, first, last, scratch); break;
    default: multiply<float>(x, weight, first, last, scratch);
  }
  const std::int64_t column = first * kPanel, count = std::min(width, weight.out_features() - column);
  const float* bias = weight.bias() == nullptr ? nullptr : weight.bias() + column;
  for (std::int64_t i = 0; i < x.rows; ++i)
    finish_row(scratch.sums.data() + i * width, epilogue, bias, count, out.row(i) + column);
}

std::int64_t gemm_block_rows() { return kBlockRows / kTileRows * kTileRows; }
std::int64_t gemm_tile_rows() { return kTileRows; }
std::int64_t gemm_task_panels() { return kTaskPanels; }

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {

HWY_EXPORT(gemm_block);
HWY_EXPORT(gemm_block_rows);
HWY_EXPORT(gemm_tile_rows);
HWY_EXPORT(gemm_task_panels);

void gemm_cpu(ThreadPool& threads, ConstMatrixView x, const PackedWeight& weight, const Epilogue& epilogue,
              MatrixView out) {
  CHECK(x.cols == weight.in_features() && out.cols == weight.out_features() && x.rows == out.rows);
  if (x.rows == 0) return;
  // Blocks of about the same size, whole tiles but for the last: a remainder of a few rows costs a panel's widening
  // too.
  const std::int64_t most = HWY_DYNAMIC_DISPATCH(gemm_block_rows)(), tile = HWY_DYNAMIC_DISPATCH(gemm_tile_rows)();
  const std::int64_t blocks = (x.rows + most - 1) / most;
  const std::int64_t block = ((x.rows + blocks - 1) / blocks + tile - 1) / tile * tile;
  const std::int64_t row_blocks = (x.rows + block - 1) / block;
  const std::int64_t step = HWY_DYNAMIC_DISPATCH(gemm_task_panels)();
  const std::int64_t column_blocks = (weight.panels() + step - 1) / step;
  const auto run = [&](std::int64_t task, int) {
    const std::int64_t row = task / column_blocks * block, first = task % column_blocks * step;
    const std::int64_t rows = std::min(block, x.rows - row);
    HWY_DYNAMIC_DISPATCH(gemm_block)
    (x.row_range(row, rows), weight, first, std::min(weight.panels(), first + step), epilogue,
     out.row_range(row, rows));
  };
  const std::int64_t tasks = row_blocks * column_blocks;
  // Below this many multiply-adds, waking another thread costs more than it saves.
  constexpr std::int64_t kWorthThreads = 1 << 19;
  if (x.rows * weight.in_features() * weight.out_features() < kWorthThreads) {
    for (std::int64_t i = 0; i < tasks; ++i) run(i, 0);
  } else {
    threads.parallel_for(tasks, run);
  }
}

}  // namespace chiasm
#endif  // HWY_ONCE
