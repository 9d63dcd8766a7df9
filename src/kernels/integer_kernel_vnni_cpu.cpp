// Integers with AVX-512 VNNI: one instruction multiplies four bytes of each output and adds them to its sum. The packed
// words are its operand as they lie; int4 words are two of it after a mask and a shift.
#include <algorithm>

#include "kernels/integer_kernels_cpu.h"

#if defined(__x86_64__)

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace chiasm {
namespace {

// Rows of the tallest tile: with two vectors of outputs their sums, the weights and what is unpacked fill 32 registers.
constexpr int kRows = 12;
constexpr std::int64_t kStripDepth = 512;

inline __attribute__((always_inline)) __m512 scales_of(const std::uint16_t* at) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))), 16));
}

// Adds four activations at `at` times both vectors of outputs. Written out: left to itself gcc moves sums from register
// to register, which takes half the speed.
inline __attribute__((always_inline)) void add_row(__m512i& acc0, __m512i& acc1, __m512i weights0, __m512i weights1,
                                                   const std::byte* at) {
  __m512i row;
  asm("vpbroadcastd %5, %2\n\tvpdpbusd %2, %3, %0\n\tvpdpbusd %2, %4, %1"
      : "+v"(acc0), "+v"(acc1), "=&v"(row)
      : "v"(weights0), "v"(weights1), "m"(*reinterpret_cast<const std::byte(*)[4]>(at)));
}

template <int Rows, int Bits>
inline __attribute__((always_inline)) void tile(const QuantisedRows& x, const QuantisedWeight& weight,
                                                std::int64_t panel, std::int64_t first, std::int64_t last,
                                                bool accumulate, float* sums, std::int64_t ldc) {
  const std::int64_t depth = weight.format().group, words = depth * Bits / 32;
  for (std::int64_t g = first; g < last; ++g) {
    const std::uint8_t* b = weight.words(panel, g);
    const std::byte* a = x.values + g * depth;
    __m512i acc[Rows][2];
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) acc[i][0] = acc[i][1] = _mm512_set1_epi32(x.offsets[i * x.groups + g]);
    for (std::int64_t w = 0; w < words; ++w) {
      const __m512i low = _mm512_loadu_si512(b + w * kPanel * 4), high = _mm512_loadu_si512(b + w * kPanel * 4 + 64);
      prefetch_words(b + w * kPanel * 4);
      prefetch_words(b + w * kPanel * 4 + 64);
      if constexpr (Bits == 8) {
#pragma GCC unroll 12
        for (int i = 0; i < Rows; ++i) add_row(acc[i][0], acc[i][1], low, high, a + i * x.stride + 4 * w);
      } else {
        const __m512i mask = _mm512_set1_epi8(0xF);
        const __m512i low0 = _mm512_and_si512(low, mask), high0 = _mm512_and_si512(high, mask);
        const __m512i low1 = _mm512_and_si512(_mm512_srli_epi16(low, 4), mask);
        const __m512i high1 = _mm512_and_si512(_mm512_srli_epi16(high, 4), mask);
#pragma GCC unroll 12
        for (int i = 0; i < Rows; ++i) add_row(acc[i][0], acc[i][1], low0, high0, a + i * x.stride + 8 * w);
#pragma GCC unroll 12
        for (int i = 0; i < Rows; ++i) add_row(acc[i][0], acc[i][1], low1, high1, a + i * x.stride + 8 * w + 4);
      }
    }
    prefetch_words(b + words * kPanel * 4);
    const __m512 scale0 = scales_of(weight.scales(panel, g)), scale1 = scales_of(weight.scales(panel, g) + 16);
    const bool add = accumulate || g > first;
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      float* sum = sums + i * ldc;
      const __m512 row = _mm512_set1_ps(x.scales[i * x.groups + g]);
      const __m512 before0 = add ? _mm512_loadu_ps(sum) : _mm512_setzero_ps();
      const __m512 before1 = add ? _mm512_loadu_ps(sum + 16) : _mm512_setzero_ps();
      _mm512_storeu_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i][0]), _mm512_mul_ps(row, scale0), before0));
      _mm512_storeu_ps(sum + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i][1]), _mm512_mul_ps(row, scale1), before1));
    }
  }
}

template <int Bits>
void multiply_strip(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                    std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  for (std::int64_t i = 0; i < x.rows;) {
    // Tiles of about the same size: 14 rows are 7 and 7.
    const std::int64_t left = x.rows - i, tiles = (left + kRows - 1) / kRows, height = (left + tiles - 1) / tiles;
    const QuantisedRows rows = x.row_range(i, height);
    float* to = sums + i * ldc;
    switch (height) {
      case 12: tile<12, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 11: tile<11, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 10: tile<10, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 9: tile<9, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 8: tile<8, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 7: tile<7, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 6: tile<6, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 5: tile<5, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 4: tile<4, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 3: tile<3, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 2: tile<2, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      default: tile<1, Bits>(rows, weight, panel, first, last, accumulate, to, ldc); break;
    }
    i += height;
  }
}

void multiply(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
              std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  // What several tiles read stays near meanwhile.
  const std::int64_t strip = x.rows <= kRows ? last - first : kStripDepth / weight.format().group;
  for (std::int64_t g = first; g < last; g += strip) {
    const std::int64_t end = std::min(last, g + strip);
    const bool add = accumulate || g > first;
    if (weight.format().bits == 4) {
      multiply_strip<4>(x, weight, panel, g, end, add, sums, ldc);
    } else {
      multiply_strip<8>(x, weight, panel, g, end, add, sums, ldc);
    }
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
