#include "kernels/gemm_quantised_cpu.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/integer_kernels_cpu.h"
#include "kernels/rowwise_cpu.h"

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm_quantised_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "kernels/epilogue_cpu-inl.h"
#include "kernels/tile_cpu-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

// Without vectors: plain loops, with the same results.
#if HWY_TARGET == HWY_SCALAR

// Input k of a row of activations.
HWY_INLINE std::int32_t activation(const QuantisedRows& x, std::int64_t row, std::int64_t k) {
  constexpr std::int64_t kPlace[] = {0, 2, 1, 3};
  return reinterpret_cast<const std::int16_t*>(x.values + row * x.stride)[k / 4 * 4 + kPlace[k % 4]];
}

template <int Bits>
void multiply(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
              std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  const std::int64_t depth = weight.format().group;
  for (std::int64_t g = first; g < last; ++g) {
    for (std::int64_t i = 0; i < x.rows; ++i) {
      std::int32_t total[kPanel];
      std::fill_n(total, kPanel, x.offsets[i * x.groups + g]);
      for (std::int64_t k = 0; k < depth; ++k) {
        const std::int32_t a = activation(x, i, g * depth + k);
        const std::uint8_t* words = weight.words(panel, g) + k / (32 / Bits) * kPanel * 4 + k % 4;
        const int shift = Bits == 4 && k % 8 >= 4 ? 4 : 0;
        for (std::int64_t lane = 0; lane < kPanel; ++lane)
          total[lane] += a * (words[4 * lane] >> shift & ((1 << Bits) - 1));
      }
      for (std::int64_t lane = 0; lane < kPanel; ++lane) {
        float& sum = sums[i * ldc + lane];
        const float scale = x.scales[i * x.groups + g] * bf16_to_f32(weight.scales(panel, g)[lane]);
        sum = static_cast<float>(total[lane]) * scale + (accumulate || g > first ? sum : 0.0F);
      }
    }
  }
}

void quantise_row_cpu(const float* x, std::int64_t depth, const IntegerFormat& format, bool pairs, std::byte* values,
                      float* scales, std::int32_t* offsets) {
  constexpr std::int64_t kPlace[] = {0, 2, 1, 3};
  for (std::int64_t g = 0; g < format.groups(depth); ++g) {
    std::int8_t integers[128] = {};
    scales[g] = quantise_activations(x + g * format.group, std::min(format.group, depth - g * format.group), integers);
    offsets[g] = 0;
    for (std::int64_t k = 0; k < format.group; ++k) {
      offsets[g] -= format.bias() * integers[k];
      const std::int64_t at = g * format.group + k / 4 * 4 + (pairs ? kPlace[k % 4] : k % 4);
      if (pairs) {
        reinterpret_cast<std::int16_t*>(values)[at] = integers[k];
      } else {
        reinterpret_cast<std::int8_t*>(values)[at] = integers[k];
      }
    }
  }
}

#else

using I32 = hn::RebindToSigned<F32>;
using I16 = hn::Repartition<std::int16_t, I32>;
using VI32 = hn::Vec<I32>;
using VI16 = hn::Vec<I16>;
constexpr std::int64_t kVectors = kPanel / kLanes;  // of 32 sums

// acc + a[2i] b[2i] + a[2i + 1] b[2i + 1] in each lane i.
HWY_INLINE VI32 add_pairs(VI32 acc, VI16 a, VI16 b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  // Written out, here and below: compilers multiply everything first and add later, and run out of registers.
  VI32 product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(acc.raw), "=&v"(product.raw) : "v"(a.raw), "v"(b.raw));
  return acc;
#else
  const I32 d;
  const VI32 x = hn::BitCast(d, a), y = hn::BitCast(d, b);
  const VI32 odd = hn::Mul(hn::ShiftRight<16>(x), hn::ShiftRight<16>(y));
  const VI32 even = hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(x)), hn::ShiftRight<16>(hn::ShiftLeft<16>(y)));
  return hn::Add(acc, hn::Add(odd, even));
#endif
}

// Two int16 activations in every lane.
HWY_INLINE VI16 spread(const std::int16_t* at) {
  std::int32_t both = 0;
  std::memcpy(&both, at, 4);
  return hn::BitCast(I16(), hn::Set(I32(), both));
}

// The integers of a vector of words as pairs of int16, in the order of the activations: of int8 (0, 2) and (1, 3), of
// int4 (0, 2), (1, 3), (4, 6), (5, 7).
template <int Bits>
constexpr int kPairs = 16 / Bits;
template <int Bits, int I>
HWY_INLINE VI16 unpack(hn::Vec<hn::RebindToUnsigned<I16> > words) {
  const hn::RebindToUnsigned<I16> u;
  const I16 d;
  if constexpr (Bits == 8) {
    return hn::BitCast(d, I == 0 ? hn::And(words, hn::Set(u, 0xFF)) : hn::ShiftRight<8>(words));
  } else if constexpr (I == 0) {
    return hn::BitCast(d, hn::And(words, hn::Set(u, 0xF)));
  } else if constexpr (I == 3) {
    return hn::BitCast(d, hn::ShiftRight<12>(words));
  } else {
    return hn::BitCast(d, hn::And(hn::ShiftRight < I == 1 ? 8 : 4 > (words), hn::Set(u, 0xF)));
  }
}
HWY_INLINE hn::Vec<hn::RebindToUnsigned<I16> > load_words(const std::uint8_t* at) {
  const hn::RebindToUnsigned<I16> u;
  return hn::BitCast(u, hn::LoadU(hn::Repartition<std::uint8_t, I32>(), at));
}
HWY_INLINE VF32 load_scales(const std::uint16_t* at) { return load_f32(reinterpret_cast<const hwy::bfloat16_t*>(at)); }

// acc[i][j] += column[j] . the two activations of row i at a[i] + k.
template <int MR, int NV>
HWY_INLINE void add_column(VI32 (&acc)[MR][NV], const VI16 (&column)[NV], const std::int16_t* const (&a)[MR],
                           std::int64_t k) {
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    const VI16 row = spread(a[i] + k);
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = add_pairs(acc[i][j], column[j], row);
  }
}

// sums of one group, scaled, behind those before it.
template <int MR, int NV>
HWY_INLINE void add_group(const VI32 (&acc)[MR][NV], const QuantisedRows& x, std::int64_t group,
                          const VF32 (&scale)[NV], bool accumulate, float* sums, std::int64_t ldc) {
  const F32 d;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    const VF32 row_scale = hn::Set(d, x.scales[i * x.groups + group]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      float* sum = sums + i * ldc + j * kLanes;
      const VF32 before = accumulate ? hn::LoadU(d, sum) : hn::Zero(d);
      hn::StoreU(hn::MulAdd(hn::ConvertTo(d, acc[i][j]), hn::Mul(row_scale, scale[j]), before), d, sum);
    }
  }
}

// Where each row's group begins, and what its sums begin with.
template <int MR, int NV>
HWY_INLINE void begin_group(const QuantisedRows& x, std::int64_t group, std::int64_t depth, VI32 (&acc)[MR][NV],
                            const std::int16_t* (&a)[MR]) {
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    a[i] = reinterpret_cast<const std::int16_t*>(x.values + i * x.stride) + group * depth;
    const VI32 offset = hn::Set(I32(), x.offsets[i * x.groups + group]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = offset;
  }
}

// Integers go from the packed words straight to the registers.
template <int Bits, int MR, int NV>
HWY_INLINE void direct_tile(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel,
                            std::int64_t first, std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  const std::int64_t depth = weight.format().group, words = depth * Bits / 32;
  for (std::int64_t g = first; g < last; ++g) {
    for (std::int64_t v = 0; v < kVectors; v += NV) {
      const std::uint8_t* from = weight.words(panel, g) + v * kLanes * 4;
      VI32 acc[MR][NV];
      const std::int16_t* a[MR];
      begin_group(x, g, depth, acc, a);
      for (std::int64_t w = 0; w < words; ++w) {
        hn::Vec<hn::RebindToUnsigned<I16> > packed[NV];
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) packed[j] = load_words(from + (w * kPanel + j * kLanes) * 4);
        for (std::int64_t line = 0; line < NV * kLanes * 4; line += 64) prefetch_words(from + w * kPanel * 4 + line);
        const std::int64_t k = w * kPairs<Bits> * 2;
        VI16 column[NV];
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) column[j] = unpack<Bits, 0>(packed[j]);
        add_column(acc, column, a, k);
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) column[j] = unpack<Bits, 1>(packed[j]);
        add_column(acc, column, a, k + 2);
        if constexpr (Bits == 4) {
#pragma GCC unroll 8
          for (int j = 0; j < NV; ++j) column[j] = unpack<Bits, 2>(packed[j]);
          add_column(acc, column, a, k + 4);
#pragma GCC unroll 8
          for (int j = 0; j < NV; ++j) column[j] = unpack<Bits, 3>(packed[j]);
          add_column(acc, column, a, k + 6);
        }
      }
      if (v == 0) prefetch_words(from + words * kPanel * 4);
      VF32 scale[NV];
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) scale[j] = load_scales(weight.scales(panel, g) + (v + j) * kLanes);
      add_group(acc, x, g, scale, accumulate || g > first, sums + v * kLanes, ldc);
    }
  }
}

// Rows of the tallest tile: with two vectors of outputs their sums, the weights and what is between fill the registers.
constexpr std::int64_t kDirectRows = kTileRows == 12 ? 12 : 4, kStripDepth = 256;

// The tile's height to use when `left` rows are left: of five it is better 3 and 2 than 4 and 1.
HWY_INLINE std::int64_t direct_rows(std::int64_t left) {
  if (kDirectRows == 4 && left > 4 && left < 8) return (left + 1) / 2;
  return left >= kDirectRows ? kDirectRows : left >= 8 ? 8 : std::min<std::int64_t>(left, 4);
}

template <int Bits>
HWY_NOINLINE void multiply(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel,
                           std::int64_t first, std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  if (x.rows == 1)
    return direct_tile < Bits, 1, kVectors<4 ? 2 : 4>(x, weight, panel, first, last, accumulate, sums, ldc);
  // What several tiles read stays near meanwhile.
  const std::int64_t strip = x.rows <= kDirectRows ? last - first : kStripDepth / weight.format().group;
  for (std::int64_t g = first; g < last; g += strip) {
    const std::int64_t end = std::min(last, g + strip);
    const bool add = accumulate || g > first;
    for (std::int64_t i = 0; i < x.rows;) {
      const std::int64_t height = direct_rows(x.rows - i);
      const QuantisedRows rows = x.row_range(i, height);
      float* to = sums + i * ldc;
      switch (height) {
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
        case 12: direct_tile<Bits, 12, 2>(rows, weight, panel, g, end, add, to, ldc); break;
        case 8: direct_tile<Bits, 8, 2>(rows, weight, panel, g, end, add, to, ldc); break;
#endif
        case 4: direct_tile<Bits, 4, 2>(rows, weight, panel, g, end, add, to, ldc); break;
        case 3: direct_tile<Bits, 3, 2>(rows, weight, panel, g, end, add, to, ldc); break;
        case 2: direct_tile<Bits, 2, 2>(rows, weight, panel, g, end, add, to, ldc); break;
        default: direct_tile<Bits, 1, 2>(rows, weight, panel, g, end, add, to, ldc); break;
      }
      i += height;
    }
  }
}

// One group of activations, a whole one, as precision.h has it; returns the scale. What becomes of the integers is
// `store(at, int32 vector)`'s, and their sum is left in `sum`.
template <std::int64_t Count, class Store>
HWY_INLINE float quantise_group(const float* x, std::int32_t& sum, const Store& store) {
  const F32 d;
  const I32 d32;
  const VI32 signless = hn::Set(d32, 0x7FFFFFFF);
  VI32 most = hn::Zero(d32);
  for (std::int64_t k = 0; k < Count; k += kLanes)
    most = hn::Max(most, hn::And(hn::BitCast(d32, hn::LoadU(d, x + k)), signless));
  const std::int32_t top = hn::GetLane(hn::MaxOfLanes(d32, most));
  float largest = 0;
  std::memcpy(&largest, &top, 4);
  const bool finite = top < 0x7F800000;
  const bool usable = finite && largest >= kLeastActivation;
  const VF32 inverse = hn::Set(d, usable ? 127.0F / largest : 0.0F);
  VI32 total = hn::Zero(d32);
  for (std::int64_t k = 0; k < Count; k += kLanes) {
    const VI32 integers = usable ? hn::NearestInt(hn::Mul(hn::LoadU(d, x + k), inverse)) : hn::Zero(d32);
    total = hn::Add(total, integers);
    store(k, integers);
  }
  sum = hn::GetLane(hn::SumOfLanes(d32, total));
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return usable ? largest / 127.0F : 0.0F;
}

// Groups of a constant length: loops of a few vectors are unrolled.
template <std::int64_t Group>
HWY_INLINE void quantise_groups(const float* x, std::int64_t depth, const IntegerFormat& format, bool pairs,
                                std::byte* values, float* scales, std::int32_t* offsets) {
  const I32 d32;
  for (std::int64_t g = 0; g < format.groups(depth); ++g) {
    const float* from = x + g * Group;
    alignas(64) float filled[Group];
    if (const std::int64_t left = depth - g * Group; left < Group) {
      std::fill_n(std::copy_n(from, left, filled), Group - left, 0.0F);
      from = filled;
    }
    std::int32_t sum = 0;
    if (pairs) {
      auto* to = reinterpret_cast<std::int16_t*>(values) + g * Group;
      scales[g] = quantise_group<Group>(from, sum, [&](std::int64_t k, VI32 integers) HWY_ATTR {
        // Each four (0, 1, 2, 3) of 32 bits become (0, 2), (1, 3) of 16.
        const hn::Repartition<std::int16_t, hn::Half<I32> > half;
        const VI32 later = hn::Shuffle1032(integers);
        const VI32 both = hn::Or(hn::And(integers, hn::Set(d32, 0xFFFF)), hn::ShiftLeft<16>(later));
        const hn::Repartition<std::int64_t, I32> d64;
        const auto quads = hn::BitCast(d64, both);
        hn::StoreU(hn::BitCast(half, hn::LowerHalf(hn::Half<decltype(d64)>(), hn::ConcatEven(d64, quads, quads))), half,
                   to + k);
      });
    } else {
      auto* to = reinterpret_cast<std::int8_t*>(values) + g * Group;
      scales[g] = quantise_group<Group>(from, sum, [&](std::int64_t k, VI32 integers) HWY_ATTR {
        const hn::Rebind<std::int8_t, I32> d8;
        hn::StoreU(hn::DemoteTo(d8, integers), d8, to + k);
      });
    }
    offsets[g] = -format.bias() * sum;
  }
}

// One row; `values`, `scales` and `offsets` are its.
void quantise_row_cpu(const float* x, std::int64_t depth, const IntegerFormat& format, bool pairs, std::byte* values,
                      float* scales, std::int32_t* offsets) {
  if (format.group == 32) {
    quantise_groups<32>(x, depth, format, pairs, values, scales, offsets);
  } else {
    quantise_groups<128>(x, depth, format, pairs, values, scales, offsets);
  }
}

#endif  // HWY_SCALAR

void multiply_int8(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                   std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  multiply<8>(x, weight, panel, first, last, accumulate, sums, ldc);
}
void multiply_int4(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                   std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  multiply<4>(x, weight, panel, first, last, accumulate, sums, ldc);
}

void finish_rows(const float* sums, std::int64_t ld, const Epilogue& epilogue, const float* bias, MatrixView out) {
  for (std::int64_t i = 0; i < out.rows; ++i) finish_row(sums + i * ld, epilogue, bias, out.cols, out.row(i));
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {

HWY_EXPORT(multiply_int8);
HWY_EXPORT(multiply_int4);
HWY_EXPORT(quantise_row_cpu);
HWY_EXPORT(finish_rows);

namespace {

void multiply_highway(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                      std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  if (weight.format().bits == 4) {
    HWY_DYNAMIC_DISPATCH(multiply_int4)(x, weight, panel, first, last, accumulate, sums, ldc);
  } else {
    HWY_DYNAMIC_DISPATCH(multiply_int8)(x, weight, panel, first, last, accumulate, sums, ldc);
  }
}

constexpr IntegerKernel kHighway{.name = "pairs",
                                 .int8_pairs = true,
                                 .int4_pairs = true,
                                 .tile_rows = 12,
                                 .strip_depth = 256,
                                 .multiply = &multiply_highway};

// What a product needs beside its operands; kept from call to call, at most kPiece rows of it.
struct Scratch {
  std::vector<std::byte> values;
  std::vector<float> scales;
  std::vector<std::int32_t> offsets;
};

// Room for `count` values. It never shrinks: what is given back would be cleared when it is taken again.
template <class T>
T* room(std::vector<T>& memory, std::int64_t count) {
  if (static_cast<std::int64_t>(memory.size()) < count) memory.resize(static_cast<std::size_t>(count));
  return memory.data();
}

constexpr std::int64_t kPiece = 1024, kBlockRows = 144, kTaskPanels = 8, kFewRows = 24;
// Below this many multiply-adds, waking another thread costs more than it saves.
constexpr std::int64_t kWorthThreads = 1 << 19;

// Rows of one product, at most kPiece of them.
void multiply_piece(ThreadPool& threads, const IntegerKernel& kernel, ConstMatrixView x, const QuantisedWeight& weight,
                    const Epilogue& epilogue, MatrixView out) {
  static thread_local Scratch scratch;
  const IntegerFormat& format = weight.format();
  const std::int64_t groups = weight.groups();
  // A line more than the rows have: rows whose distance is a multiple of 4 KiB would fight for the same cache sets.
  const std::int64_t stride = groups * format.group * (kernel.pairs(format) ? 2 : 1) + 64;
  std::byte* values = room(scratch.values, x.rows * stride);
  float* scales = room(scratch.scales, x.rows * groups);
  std::int32_t* offsets = room(scratch.offsets, x.rows * groups);
  const QuantisedRows rows{x.rows, groups, stride, values, scales, offsets};
  const auto spread = [&](std::int64_t tasks, bool worth, const std::function<void(std::int64_t, int)>& task) {
    if (worth) return threads.parallel_for(tasks, task);
    for (std::int64_t i = 0; i < tasks; ++i) task(i, 0);
  };

  constexpr std::int64_t kRowsATime = 8;
  spread((x.rows + kRowsATime - 1) / kRowsATime, x.rows * x.cols >= kWorthThreads / 8, [&](std::int64_t task, int) {
    for (std::int64_t i = task * kRowsATime; i < std::min(x.rows, (task + 1) * kRowsATime); ++i)
      HWY_DYNAMIC_DISPATCH(quantise_row_cpu)
    (x.row(i), x.cols, format, kernel.pairs(format), values + i * stride, scales + i * groups, offsets + i * groups);
  });

  // Blocks of rows of about the same size, whole tiles but for the last.
  const std::int64_t tile = kernel.tile_rows, blocks = (x.rows + kBlockRows - 1) / kBlockRows;
  const std::int64_t block = ((x.rows + blocks - 1) / blocks + tile - 1) / tile * tile;
  const std::int64_t row_blocks = (x.rows + block - 1) / block;
  // A gated product's panels come in pairs, one of each half of the outputs, which meet before they are stored.
  const std::int64_t halves = epilogue.gated ? 2 : 1, all = weight.panels() / halves;
  const std::int64_t panels = std::clamp<std::int64_t>(all / (4 * threads.size()), 1, kTaskPanels / halves);
  const std::int64_t column_blocks = (all + panels - 1) / panels;
  const std::int64_t strip = kernel.strip_depth / format.group;
  // Blocks of rows that want the same weights come one after the other.
  spread(row_blocks * column_blocks, x.rows * x.cols * out.cols >= kWorthThreads, [&](std::int64_t task, int) {
    const std::int64_t row = task % row_blocks * block, first = task / row_blocks * panels;
    const std::int64_t count = std::min(block, x.rows - row), here = std::min(panels, all - first);
    const std::int64_t width = here * kPanel, ld = halves * width, column = first * kPanel;
    static thread_local std::vector<float> memory;
    float* const sums = room(memory, count * ld);
    const QuantisedRows some = rows.row_range(row, count);
    const auto multiply = [&](std::int64_t i, std::int64_t from, std::int64_t to) {
      const std::int64_t panel = i / here * all + first + i % here;
      kernel.multiply(some, weight, panel, from, to, from > 0, sums + i * kPanel, ld);
    };
    if (count <= kFewRows) {  // bound by the weights' way here: they are read in the order in which they lie
      for (std::int64_t i = 0; i < halves * here; ++i) multiply(i, 0, groups);
    } else {
      for (std::int64_t g = 0; g < groups; g += strip)
        for (std::int64_t i = 0; i < halves * here; ++i) multiply(i, g, std::min(groups, g + strip));
    }
    const auto finish = [&](std::int64_t half, MatrixView to) {
      const float* bias = weight.bias() == nullptr ? nullptr : weight.bias() + half * all * kPanel + column;
      HWY_DYNAMIC_DISPATCH(finish_rows)(sums + half * width, ld, epilogue, bias, to);
    };
    const MatrixView target = out.row_range(row, count).col_range(column, std::min(width, out.cols / halves - column));
    if (!epilogue.gated) return finish(0, target);
    const MatrixView gate{sums, count, width, ld}, up{sums + width, count, width, ld};
    if (weight.bias() != nullptr) {
      finish(0, gate);
      finish(1, up);
    }
    silu_mul_cpu(gate, up, target);
  });
}

}  // namespace

const IntegerKernel& highway_integer_kernel() { return kHighway; }

bool gates_in_one_pass(const QuantisedWeight& weight) { return weight.out_features() % (2 * kPanel) == 0; }

void gemm_quantised_cpu(ThreadPool& threads, const IntegerKernel& kernel, ConstMatrixView x,
                        const QuantisedWeight& weight, const Epilogue& epilogue, MatrixView out) {
  CHECK(x.cols == weight.in_features() && out.cols == weight.out_features() && x.rows == out.rows);
  CHECK(!epilogue.gated || gates_in_one_pass(weight));
  for (std::int64_t row = 0; row < x.rows; row += kPiece) {
    const std::int64_t count = std::min(kPiece, x.rows - row);
    multiply_piece(threads, kernel, x.row_range(row, count), weight, epilogue, out.row_range(row, count));
  }
}

}  // namespace chiasm
#endif  // HWY_ONCE
