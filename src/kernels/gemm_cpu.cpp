#include "kernels/gemm_cpu.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/check.h"

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/cache_control.h>
#include "kernels/epilogue_cpu-inl.h"
#include "kernels/tile_cpu-inl.h"
#include "kernels/turn_cpu-inl.h"
// clang-format on

// What a target's kernels are asked to do; the same for all of them.
#ifndef CHIASM_KERNELS_GEMM_CPU_TASK_
#define CHIASM_KERNELS_GEMM_CPU_TASK_
namespace chiasm {
namespace {

struct GemmSizes {
  std::int64_t few_rows;  // so many at most are few; more than `in_registers` of them are packed
  std::int64_t in_registers;
  std::int64_t few_columns;    // outputs that few rows are multiplied with at once
  std::int64_t tile_rows;      // many: rows of a tile,
  std::int64_t block_rows;     // of a block,
  std::int64_t block_depth;    // its inputs,
  std::int64_t block_columns;  // and outputs
};

// Outputs [first, first + count) of one part of a weight.
struct GemmColumns {
  const RowWeight::Part* part;
  std::int64_t first, count;
};

}  // namespace
}  // namespace chiasm
#endif

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

constexpr int kVectors = 2;  // of a tile
constexpr std::int64_t kStripWidth = kVectors * kLanes;
// A strip of kBlockDepth x kStripWidth floats stays in L1 while a block of x, kBlockRows x kBlockDepth in L2, passes
// by.
constexpr std::int64_t kBlockRows = 288, kBlockDepth = 256, kBlockColumns = 4 * kStripWidth;
constexpr std::int64_t kFetchingRows = 36;  // the last so many of a block fetch the next strip
// Sixteen rows of weights are as many streams of memory as the hardware follows well.
constexpr int kFewVectors = kLanes == 16 ? 1 : 2;
constexpr std::int64_t kFewWidth = kFewVectors * kLanes;
// Up to so many rows are multiplied with weights that never leave the registers.
constexpr std::int64_t kInRegisters = 4, kFewRows = 24;
constexpr std::int64_t kFewDepth = 128;  // inputs of a strip for more
static_assert(kStripWidth <= RowWeight::kFewestRows && kFewWidth <= RowWeight::kFewestRows);

GemmSizes gemm_sizes() {
  return {kFewRows, kInRegisters, kFewWidth, kTileRows, kBlockRows, kBlockDepth, kBlockColumns};
}

// One strip of weights as f32: out[k * NV * kLanes + column], to whole blocks of inputs. Rows are `step` bytes apart.
template <int NV, class B>
HWY_INLINE void turn_strip(const std::byte* weights, std::int64_t step, std::int64_t depth, float* out) {
  const F32 d;
  for (int v = 0; v < NV; ++v) {
    const std::byte* rows = weights + v * kLanes * step;
    for (std::int64_t k = 0; k < depth; k += kBlockInputs<B>) {
      VU32 words[4];
      turn(rows + k * static_cast<std::int64_t>(sizeof(B)), step, words);
#pragma GCC unroll 8
      for (std::int64_t i = 0; i < kBlockInputs<B>; ++i)
        hn::Store(input<B>(words, i), d, out + ((k + i) * NV + v) * kLanes);
    }
  }
}

// The bytes of the next strip, fetched line by line while rows are multiplied with this one: all at once they would
// keep the turning waiting.
class FetchStrip {
 public:
  static constexpr bool kActive = true;
  FetchStrip(const std::byte* first, std::int64_t rows, std::int64_t step, std::int64_t row_bytes)
      : row_(first), rows_(row_bytes > 0 ? rows : 0), step_(step), row_bytes_(row_bytes) {}
  HWY_INLINE void next() {
    if (rows_ == 0) return;
    hwy::Prefetch(row_ + at_);
    at_ += 64;
    if (at_ < row_bytes_) return;
    at_ = 0;
    row_ += step_;
    --rows_;
  }

 private:
  const std::byte* row_;
  std::int64_t rows_, step_, row_bytes_, at_ = 0;
};

// --- few rows

// The inputs of one block, from `k` on; `count` of them are there.
template <int MR, class B>
HWY_INLINE void add_block(ConstMatrixView x, std::int64_t k, std::int64_t count, const std::byte* weights,
                          std::int64_t step, VF32 (&acc)[MR][kFewVectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < kFewVectors; ++v) {
    VU32 words[4];
    turn(weights + k * static_cast<std::int64_t>(sizeof(B)) + v * kLanes * step, step, words);
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < kBlockInputs<B>; ++i) {
      if (i >= count) break;
      const VF32 column = input<B>(words, i);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) acc[r][v] = hn::MulAdd(hn::Set(F32(), x.row(r)[k + i]), column, acc[r][v]);
    }
  }
}

// sums [MR][kFewWidth] of x [MR, K] with outputs whose rows are `step` bytes apart.
template <int MR, class B>
HWY_NOINLINE void multiply_in_registers(ConstMatrixView x, const std::byte* weights, std::int64_t step, float* sums) {
  const F32 d;
  VF32 acc[MR][kFewVectors];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kFewVectors; ++v) acc[r][v] = hn::Zero(d);
  std::int64_t k = 0;
  for (; k + kBlockInputs<B> <= x.cols; k += kBlockInputs<B>)
    add_block<MR, B>(x, k, kBlockInputs<B>, weights, step, acc);
  if (k < x.cols) add_block<MR, B>(x, k, x.cols - k, weights, step, acc);
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kFewVectors; ++v) hn::StoreU(acc[r][v], d, sums + r * kFewWidth + v * kLanes);
}

// The same for more rows, which are packed: [tile][K][tile rows].
template <class B>
HWY_NOINLINE void multiply_in_strips(std::int64_t rows, std::int64_t total, const float* packed,
                                     const std::byte* weights, std::int64_t step, float* sums) {
  alignas(64) float strip[kFewDepth * kFewWidth];
  for (std::int64_t k0 = 0; k0 < total; k0 += kFewDepth) {
    const std::int64_t depth = std::min(kFewDepth, total - k0);
    turn_strip<kFewVectors, B>(weights + k0 * static_cast<std::int64_t>(sizeof(B)), step, depth, strip);
    // Lanes read on and on: behind a row comes what they read in the next group.
    constexpr auto kBytes = static_cast<std::int64_t>(kFewDepth * sizeof(B));
    FetchStrip fetch(weights + k0 * static_cast<std::int64_t>(sizeof(B)) + kBytes, kFewWidth, step, kBytes);
    for (std::int64_t i = 0; i < rows;) {
      const int height = tile_height(rows - i);
      tile_of_height<kFewVectors, 0, 1>(height, depth, packed + i * total + k0 * height, OneBlock{strip}, kFewWidth,
                                        sums + i * kFewWidth, kFewWidth, k0 > 0, fetch);
      i += height;
    }
  }
}

// `packed` is x where it has more than kInRegisters rows.
template <class B>
void multiply_few(ConstMatrixView x, const float* packed, const std::byte* weights, std::int64_t step, float* sums) {
  static_assert(kInRegisters == 4);
  switch (x.rows) {
    case 1: return multiply_in_registers<1, B>(x, weights, step, sums);
    case 2: return multiply_in_registers<2, B>(x, weights, step, sums);
    case 3: return multiply_in_registers<3, B>(x, weights, step, sums);
    case 4: return multiply_in_registers<4, B>(x, weights, step, sums);
    default: return multiply_in_strips<B>(x.rows, x.cols, packed, weights, step, sums);
  }
}

// out [rows][columns.count]. Lanes stand as far apart as the columns allow: each of them then reads one long piece of
// memory, row after row, which the hardware sees coming; of neighbouring rows it would meet sixteen new streams every
// few kilobytes.
template <class B>
void few_rows(ConstMatrixView x, const float* packed, const GemmColumns& columns, float* out) {
  const RowWeight::Part& part = *columns.part;
  const std::int64_t groups = columns.count / kFewWidth, ld = columns.count;
  float sums[kFewRows * kFewWidth] = {};
  for (std::int64_t g = 0; g < groups; ++g) {
    multiply_few<B>(x, packed, part.data + (columns.first + g) * part.stride, groups * part.stride, sums);
    for (std::int64_t r = 0; r < x.rows; ++r)
      for (std::int64_t lane = 0; lane < kFewWidth; ++lane)
        out[r * ld + lane * groups + g] = sums[r * kFewWidth + lane];
  }
  const std::int64_t done = groups * kFewWidth, left = columns.count - done;
  if (left == 0) return;
  // Less than a vector: together with outputs before them, or with the part's padding.
  const std::int64_t begin = std::max<std::int64_t>(0, columns.first + columns.count - kFewWidth);
  multiply_few<B>(x, packed, part.data + begin * part.stride, part.stride, sums);
  for (std::int64_t r = 0; r < x.rows; ++r)
    std::copy_n(sums + r * kFewWidth + (columns.first + done - begin), left, out + r * ld + done);
}

// --- many rows

// Inputs [k0, k0 + depth) of a block's rows as tiles of [k][tile rows], tile after tile.
void pack_rows(ConstMatrixView x, std::int64_t k0, std::int64_t depth, float* out) {
  for (std::int64_t i = 0; i < x.rows;) {
    const int height = tile_height(x.rows - i);
    turn_rows(height, [&](std::int64_t r) { return x.row(i + r) + k0; }, depth, height, out);
    out += depth * height;
    i += height;
  }
}

// Where strip s of some columns begins: at its place, or before it where that would leave a part of it.
std::int64_t strip_begin(const GemmColumns& columns, std::int64_t s) {
  return std::min(columns.first + s * kStripWidth,
                  std::max<std::int64_t>(0, columns.first + columns.count - kStripWidth));
}

// Sums of a block of packed rows with some columns, strip after strip: sums [strips][rows][kStripWidth]. Those that are
// done are handed over while they are in the cache, as finish_strip(strip, its sums).
template <class B, class FinishStrip>
HWY_NOINLINE void many_rows(std::int64_t rows, std::int64_t total, const float* packed, const GemmColumns& columns,
                            float* sums, const FinishStrip& finish_strip) {
  alignas(64) float strip[kBlockDepth * kStripWidth];
  const RowWeight::Part& part = *columns.part;
  const std::int64_t strips = (columns.count + kStripWidth - 1) / kStripWidth;
  const auto place = [&](std::int64_t s, std::int64_t k) {
    return part.data + strip_begin(columns, s) * part.stride + k * static_cast<std::int64_t>(sizeof(B));
  };
  for (std::int64_t k0 = 0; k0 < total; k0 += kBlockDepth) {
    const std::int64_t depth = std::min(kBlockDepth, total - k0);
    for (std::int64_t s = 0; s < strips; ++s) {
      turn_strip<kVectors, B>(place(s, k0), part.stride, depth, strip);
      const std::int64_t next_k = s + 1 < strips ? k0 : k0 + depth;
      const std::int64_t next_depth = std::min(kBlockDepth, total - next_k);
      FetchStrip fetch(place(s + 1 < strips ? s + 1 : 0, next_k), kStripWidth, part.stride,
                       next_depth * static_cast<std::int64_t>(sizeof(B)));
      FetchNothing nothing;
      const float* a = packed + k0 * rows;
      float* const out = sums + s * rows * kStripWidth;
      std::int64_t i = 0;
      const auto multiply_until = [&](std::int64_t end, auto& how) HWY_ATTR {
        while (i < end) {
          const int height = tile_height(rows - i);
          tile_of_height<kVectors, 0, 1>(height, depth, a, OneBlock{strip}, kStripWidth, out + i * kStripWidth,
                                         kStripWidth, k0 > 0, how);
          a += depth * height;
          i += height;
        }
      };
      multiply_until(rows - kFetchingRows, nothing);
      multiply_until(rows, fetch);
      if (k0 + depth == total) finish_strip(s, out);
    }
  }
}

// --- tasks

void finish(const float* sums, const RowWeight& weight, const Epilogue& epilogue, std::int64_t column,
            std::int64_t count, float* out) {
  finish_row(sums, epilogue, weight.bias() == nullptr ? nullptr : weight.bias() + column, count, out + column);
}

template <class Body>
void with_element(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kBF16: return body(hwy::bfloat16_t());
    case DType::kF16: return body(hwy::float16_t());
    default: return body(float());
  }
}

// Some columns of all rows, of which there are few.
void gemm_few(ConstMatrixView x, const float* packed, const RowWeight& weight, const GemmColumns& columns,
              const Epilogue& epilogue, MatrixView out) {
  static thread_local std::vector<float> sums;  // kept from call to call
  sums.resize(static_cast<std::size_t>(x.rows * columns.count));
  with_element(weight.dtype(),
               [&](auto element) HWY_ATTR { few_rows<decltype(element)>(x, packed, columns, sums.data()); });
  for (std::int64_t r = 0; r < x.rows; ++r)
    finish(sums.data() + r * columns.count, weight, epilogue, columns.part->begin + columns.first, columns.count,
           out.row(r));
}

// Some columns of a block of rows, which are packed.
void gemm_block(const float* packed, const RowWeight& weight, const GemmColumns& columns, const Epilogue& epilogue,
                MatrixView out) {
  static thread_local std::vector<float> sums;  // kept from call to call: a block's rows x columns
  const std::int64_t strips = (columns.count + kStripWidth - 1) / kStripWidth;
  sums.resize(static_cast<std::size_t>(strips * out.rows * kStripWidth));
  const auto finish_strip = [&](std::int64_t s, const float* from) HWY_ATTR {
    const std::int64_t first = columns.first + s * kStripWidth, shift = first - strip_begin(columns, s);
    const std::int64_t count = std::min(kStripWidth, columns.count - s * kStripWidth);
    for (std::int64_t r = 0; r < out.rows; ++r)
      finish(from + r * kStripWidth + shift, weight, epilogue, columns.part->begin + first, count, out.row(r));
  };
  with_element(weight.dtype(), [&](auto element) HWY_ATTR {
    many_rows<decltype(element)>(out.rows, weight.in_features(), packed, columns, sums.data(), finish_strip);
  });
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {
namespace {

HWY_EXPORT(gemm_sizes);
HWY_EXPORT(gemm_few);
HWY_EXPORT(gemm_block);
HWY_EXPORT(pack_rows);

// The outputs of a weight in pieces of `count`, which do not cross its parts.
std::vector<GemmColumns> split_columns(const RowWeight& weight, std::int64_t count) {
  std::vector<GemmColumns> out;
  for (const RowWeight::Part& part : weight.parts())
    for (std::int64_t first = 0; first < part.rows; first += count)
      out.push_back({&part, first, std::min(count, part.rows - first)});
  return out;
}

// Runs tasks on the pool when `work` multiply-adds are worth waking threads for.
template <class Task>
void run(ThreadPool& threads, std::int64_t count, std::int64_t work, const Task& task) {
  constexpr std::int64_t kWorthThreads = 1 << 19;
  if (work < kWorthThreads) {
    for (std::int64_t i = 0; i < count; ++i) task(i, 0);
  } else {
    threads.parallel_for(count, task);
  }
}

// Packed rows are kept for all columns, so many at a time that they take 8 MB.
constexpr std::int64_t kPackedFloats = 2 << 20;

// Memory for packed rows, the calling thread's, kept from call to call. All that it may need at once: only what is
// touched counts, and blocks that grow leave holes behind them.
float* packed_memory(std::int64_t floats) {
  static thread_local std::unique_ptr<float[]> memory;
  static thread_local std::int64_t room = 0;
  if (room < floats) {
    room = std::max(floats, kPackedFloats);
    memory = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(room));
  }
  return memory.get();
}

void few_rows_cpu(ThreadPool& threads, const GemmSizes& sizes, ConstMatrixView x, const RowWeight& weight,
                  const Epilogue& epilogue, MatrixView out) {
  float* packed = nullptr;
  if (x.rows > sizes.in_registers) {
    packed = packed_memory(x.rows * x.cols);
    HWY_DYNAMIC_DISPATCH(pack_rows)(x, 0, x.cols, packed);
  }
  // Odd numbers of groups: lanes that are an even number of rows apart would meet in the same places of the cache.
  // Fewer where some threads would go without.
  std::int64_t groups = 7;
  while (groups > 1 && weight.out_features() < groups * sizes.few_columns * 4 * threads.size()) groups -= 2;
  const std::vector<GemmColumns> columns = split_columns(weight, groups * sizes.few_columns);
  run(threads, static_cast<std::int64_t>(columns.size()), x.rows * weight.in_features() * weight.out_features(),
      [&](std::int64_t i, int) { HWY_DYNAMIC_DISPATCH(gemm_few)(x, packed, weight, columns[i], epilogue, out); });
}

void many_rows_cpu(ThreadPool& threads, const GemmSizes& sizes, ConstMatrixView x, const RowWeight& weight,
                   const Epilogue& epilogue, MatrixView out) {
  // Blocks of about the same size, whole tiles but for the last: a remainder of a few rows costs a strip's turning too.
  const std::int64_t blocks = (x.rows + sizes.block_rows - 1) / sizes.block_rows;
  const std::int64_t block = ((x.rows + blocks - 1) / blocks + sizes.tile_rows - 1) / sizes.tile_rows * sizes.tile_rows;
  const std::int64_t row_blocks = (x.rows + block - 1) / block, total = x.cols;
  const std::int64_t depths = (total + sizes.block_depth - 1) / sizes.block_depth;
  float* const packed = packed_memory(x.rows * total);  // [block][depths of it]
  run(threads, row_blocks * depths, x.rows * total, [&](std::int64_t task, int) {
    const std::int64_t row = task / depths * block, k0 = task % depths * sizes.block_depth;
    const std::int64_t count = std::min(block, x.rows - row);
    HWY_DYNAMIC_DISPATCH(pack_rows)
    (x.row_range(row, count), k0, std::min(sizes.block_depth, total - k0), packed + row * total + k0 * count);
  });
  const std::vector<GemmColumns> columns = split_columns(weight, sizes.block_columns);
  const auto column_blocks = static_cast<std::int64_t>(columns.size());
  run(threads, row_blocks * column_blocks, x.rows * total * weight.out_features(), [&](std::int64_t task, int) {
    const std::int64_t row = task / column_blocks * block, count = std::min(block, x.rows - row);
    HWY_DYNAMIC_DISPATCH(gemm_block)
    (packed + row * total, weight, columns[task % column_blocks], epilogue, out.row_range(row, count));
  });
}

}  // namespace

void gemm_cpu(ThreadPool& threads, ConstMatrixView x, const RowWeight& weight, const Epilogue& epilogue,
              MatrixView out) {
  CHECK(x.cols == weight.in_features() && out.cols == weight.out_features() && x.rows == out.rows);
  if (x.rows == 0) return;
  const GemmSizes sizes = HWY_DYNAMIC_DISPATCH(gemm_sizes)();
  if (x.rows <= sizes.few_rows) return few_rows_cpu(threads, sizes, x, weight, epilogue, out);
  const std::int64_t most = std::max(kPackedFloats / x.cols, sizes.block_rows);
  for (std::int64_t row = 0; row < x.rows; row += most) {
    const std::int64_t count = std::min(most, x.rows - row);
    many_rows_cpu(threads, sizes, x.row_range(row, count), weight, epilogue, out.row_range(row, count));
  }
}

}  // namespace chiasm
#endif  // HWY_ONCE
