// Integers with AVX-512 VNNI: one instruction multiplies four bytes of each output and adds them to its sum. The packed
// words are its operand as they lie; int4 words are two of it after a mask and a shift.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/integer_kernels_cpu.h"

#if defined(__x86_64__)

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace chiasm {
namespace {

// Rows of the tallest tile: with two vectors of outputs their integers, the weights and what is unpacked fill 32
// registers. Int8 in groups of 32 is scaled so often that its f32 sums stay in registers too, beside half the rows.
constexpr int kRows = 12, kRowsWithSums = 6;
constexpr std::int64_t kStripDepth = 512;

template <int Bits, int Depth>
constexpr bool kKeepsSums = Bits == 8 && Depth == 32;
template <int Bits, int Depth>
constexpr int kTallest = kKeepsSums<Bits, Depth> ? kRowsWithSums : kRows;

inline __attribute__((always_inline)) __m512 scales_of(const std::uint16_t* at) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))), 16));
}

// Where the rows of a tile lie: row i at fours[i / 4] + i % 4 * stride, which one address of x86 can say.
struct RowsAt {
  const std::byte* fours[kRows / 4];
  std::int64_t stride, thrice;
};

// Adds four activations of a row, word `Word` of it, times both vectors of outputs. Written out: left to itself gcc
// moves sums from register to register, which takes half the speed, and computes an address for each row.
template <int Row, int Word>
inline __attribute__((always_inline)) void add_row(__m512i& acc0, __m512i& acc1, __m512i weights0, __m512i weights1,
                                                   const RowsAt& a) {
  const std::byte* base = a.fours[Row / 4];
  __m512i row;
#define CHIASM_ADD_ROW(ADDRESS, STRIDE)                                                   \
  asm("vpbroadcastd %c6(%5" ADDRESS "), %2\n\tvpdpbusd %2, %3, %0\n\tvpdpbusd %2, %4, %1" \
      : "+v"(acc0), "+v"(acc1), "=&v"(row)                                                \
      : "v"(weights0), "v"(weights1), "r"(base), "i"(4 * Word), "r"(STRIDE), "m"(*base))
  if constexpr (Row % 4 == 0) CHIASM_ADD_ROW("", a.stride);
  if constexpr (Row % 4 == 1) CHIASM_ADD_ROW(",%7", a.stride);
  if constexpr (Row % 4 == 2) CHIASM_ADD_ROW(",%7,2", a.stride);
  if constexpr (Row % 4 == 3) CHIASM_ADD_ROW(",%7", a.thrice);
#undef CHIASM_ADD_ROW
}

template <int Rows, int Word, int... I>
inline __attribute__((always_inline)) void add_rows(__m512i (&acc)[Rows][2], __m512i weights0, __m512i weights1,
                                                    const RowsAt& a, std::integer_sequence<int, I...>) {
  (add_row<I, Word>(acc[I][0], acc[I][1], weights0, weights1, a), ...);
}

// Packed word W of 32 inputs: four of int8, eight of int4.
template <int Rows, int Bits, int W>
inline __attribute__((always_inline)) void add_word(__m512i (&acc)[Rows][2], const std::uint8_t* b, const RowsAt& a) {
  constexpr auto kEach = std::make_integer_sequence<int, Rows>();
  const __m512i low = _mm512_loadu_si512(b + W * kPanel * 4), high = _mm512_loadu_si512(b + W * kPanel * 4 + 64);
  prefetch_words(b + W * kPanel * 4);
  prefetch_words(b + W * kPanel * 4 + 64);
  if constexpr (Bits == 8) {
    add_rows<Rows, W>(acc, low, high, a, kEach);
  } else {
    const __m512i mask = _mm512_set1_epi8(0xF);
    const __m512i low0 = _mm512_and_si512(low, mask), high0 = _mm512_and_si512(high, mask);
    const __m512i low1 = _mm512_and_si512(_mm512_srli_epi16(low, 4), mask);
    const __m512i high1 = _mm512_and_si512(_mm512_srli_epi16(high, 4), mask);
    add_rows<Rows, 2 * W>(acc, low0, high0, a, kEach);
    add_rows<Rows, 2 * W + 1>(acc, low1, high1, a, kEach);
  }
}

template <int Rows, int Bits, int... W>
inline __attribute__((always_inline)) void add_words(__m512i (&acc)[Rows][2], const std::uint8_t* b, const RowsAt& a,
                                                     std::integer_sequence<int, W...>) {
  (add_word<Rows, Bits, W>(acc, b, a), ...);
}

// total += integers * (row's scale * outputs' scales), of both vectors. Written out for the same reason.
inline __attribute__((always_inline)) void add_scaled(__m512 (&total)[2], __m512i (&integers)[2],
                                                      const float* row_scale, __m512 scale0, __m512 scale1) {
  __m512 sum0, sum1;
  asm("vcvtdq2ps %4, %2\n\tvcvtdq2ps %5, %3\n\t"
      "vmulps (%8)%{1to16%}, %6, %4\n\tvmulps (%8)%{1to16%}, %7, %5\n\t"
      "vfmadd231ps %2, %4, %0\n\tvfmadd231ps %3, %5, %1"
      : "+v"(total[0]), "+v"(total[1]), "=&v"(sum0), "=&v"(sum1), "+v"(integers[0]), "+v"(integers[1])
      : "v"(scale0), "v"(scale1), "r"(row_scale), "m"(*row_scale));
}

// Groups [first, last) of `Rows` rows and one panel, whose words and scales begin at `b`.
template <int Rows, int Bits, int Depth>
void tile(const QuantisedRows& x, const std::uint8_t* b, std::int64_t first, std::int64_t last, bool accumulate,
          float* sums, std::int64_t ldc) {
  constexpr std::int64_t kStep = 32;  // inputs whose words are unrolled: as many words as the integers have bits
  const std::byte* values = x.values + first * Depth;
  RowsAt a{{values, values + 4 * x.stride, values + 8 * x.stride}, x.stride, 3 * x.stride};
  const float* row_scales = x.scales + first;
  const std::int32_t* offsets = x.offsets + first;
  __m512 total[Rows][2];
  if constexpr (kKeepsSums<Bits, Depth>) {
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      total[i][0] = accumulate ? _mm512_loadu_ps(sums + i * ldc) : _mm512_setzero_ps();
      total[i][1] = accumulate ? _mm512_loadu_ps(sums + i * ldc + 16) : _mm512_setzero_ps();
    }
  } else if (!accumulate) {
    for (int i = 0; i < Rows; ++i) std::fill_n(sums + i * ldc, kPanel, 0.0F);
  }
  for (std::int64_t g = first; g < last; ++g, ++row_scales, ++offsets) {
    __m512i acc[Rows][2];
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) acc[i][0] = acc[i][1] = _mm512_set1_epi32(offsets[i * x.groups]);
    for (std::int64_t k = 0; k < Depth; k += kStep) {
      add_words<Rows, Bits>(acc, b, a, std::make_integer_sequence<int, Bits>());
      for (const std::byte*& four : a.fours) four += kStep;
      b += Bits * kPanel * 4;
    }
    prefetch_words(b);
    const auto* const scales = reinterpret_cast<const std::uint16_t*>(b);
    const __m512 scale0 = scales_of(scales), scale1 = scales_of(scales + 16);
    b += kPanel * sizeof(std::uint16_t);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      if constexpr (kKeepsSums<Bits, Depth>) {
        add_scaled(total[i], acc[i], row_scales + i * x.groups, scale0, scale1);
      } else {
        float* sum = sums + i * ldc;
        const __m512 row = _mm512_set1_ps(row_scales[i * x.groups]);
        const __m512 before0 = _mm512_loadu_ps(sum), before1 = _mm512_loadu_ps(sum + 16);
        _mm512_storeu_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i][0]), _mm512_mul_ps(row, scale0), before0));
        _mm512_storeu_ps(sum + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i][1]), _mm512_mul_ps(row, scale1), before1));
      }
    }
  }
  if constexpr (kKeepsSums<Bits, Depth>) {
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      _mm512_storeu_ps(sums + i * ldc, total[i][0]);
      _mm512_storeu_ps(sums + i * ldc + 16, total[i][1]);
    }
  }
}

template <int Bits, int Depth, int... I>
void multiply_strip(const QuantisedRows& x, const std::uint8_t* b, std::int64_t first, std::int64_t last,
                    bool accumulate, float* sums, std::int64_t ldc, std::integer_sequence<int, I...>) {
  static constexpr decltype(&tile<1, Bits, Depth>) kTiles[] = {&tile<I + 1, Bits, Depth>...};
  constexpr std::int64_t kMost = sizeof...(I);
  for (std::int64_t i = 0; i < x.rows;) {
    // Tiles of about the same size: 14 rows are 7 and 7.
    const std::int64_t left = x.rows - i, tiles = (left + kMost - 1) / kMost, height = (left + tiles - 1) / tiles;
    kTiles[height - 1](x.row_range(i, height), b, first, last, accumulate, sums + i * ldc, ldc);
    i += height;
  }
}

template <int Bits, int Depth>
void multiply_groups(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                     std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  constexpr int kMost = kTallest<Bits, Depth>;
  // What several tiles read stays near meanwhile.
  const std::int64_t strip = x.rows <= kMost ? last - first : kStripDepth / Depth;
  for (std::int64_t g = first; g < last; g += strip)
    multiply_strip<Bits, Depth>(x, weight.words(panel, g), g, std::min(last, g + strip), accumulate || g > first, sums,
                                ldc, std::make_integer_sequence<int, kMost>());
}

void multiply(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
              std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  if (weight.format().bits == 4) {
    multiply_groups<4, 32>(x, weight, panel, first, last, accumulate, sums, ldc);
  } else if (weight.format().group == 32) {
    multiply_groups<8, 32>(x, weight, panel, first, last, accumulate, sums, ldc);
  } else {
    multiply_groups<8, 128>(x, weight, panel, first, last, accumulate, sums, ldc);
  }
}

constexpr IntegerKernel kVnni{
    .name = "avx512-vnni", .tile_rows = kRows, .strip_depth = kStripDepth, .multiply = &multiply};

}  // namespace
}  // namespace chiasm
HWY_POP_ATTRIBUTES

namespace chiasm {
const IntegerKernel* avx512_vnni_integer_kernel() {
  const bool there = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("avx512vnni");
  return there ? &kVnni : nullptr;
}
}  // namespace chiasm

#else
namespace chiasm {
const IntegerKernel* avx512_vnni_integer_kernel() { return nullptr; }
}  // namespace chiasm
#endif
