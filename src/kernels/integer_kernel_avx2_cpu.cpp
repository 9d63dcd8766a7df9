// Integers with AVX2: int4 by products of bytes. Of two bytes each the instruction adds the products into 16 bits,
// which int8 would overflow; values below 16 do not, in a whole group: 16 products of at most 15 * 127. That is twice
// the products an instruction of int16 pairs, which is what int8 is left to.
#include <algorithm>

#include "kernels/integer_kernels_cpu.h"

#if defined(__x86_64__)

#include <hwy/base.h>
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace chiasm {
namespace {

constexpr int kLanes = 8;  // outputs of a vector
constexpr std::int64_t kStripDepth = 512;
constexpr std::int64_t kRows =
    4;  // with two vectors of outputs their sums, the weights and what is between fill 16 registers

inline __attribute__((always_inline)) __m256 scales_of(const std::uint16_t* at) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))), 16));
}

inline __attribute__((always_inline)) __m256i load_words(const std::uint8_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// Of one row: 16 outputs, two sums of 16 bits each. No array of them, which gcc would keep in memory.
struct RowSums {
  __m256i first, second;

  // Adds four activations at `at` times both vectors of outputs. Written out: compilers multiply everything first and
  // add later, and run out of registers.
  inline __attribute__((always_inline)) void add(__m256i weights0, __m256i weights1, const std::byte* at) {
    __m256i row, product0, product1;
    asm("vpbroadcastd %7, %2\n\tvpmaddubsw %2, %5, %3\n\tvpmaddubsw %2, %6, %4\n\t"
        "vpaddw %3, %0, %0\n\tvpaddw %4, %1, %1"
        : "+x"(first), "+x"(second), "=&x"(row), "=&x"(product0), "=&x"(product1)
        : "x"(weights0), "x"(weights1), "m"(*reinterpret_cast<const std::byte(*)[4]>(at)));
  }

  // Scales them and adds them to what is at `sum`, or puts them there.
  inline __attribute__((always_inline)) void finish(std::int32_t offset, float scale, __m256 scale0, __m256 scale1,
                                                    bool add, float* sum) const {
    const __m256i ones = _mm256_set1_epi16(1), begin = _mm256_set1_epi32(offset);
    const __m256 row_scale = _mm256_set1_ps(scale);
    const __m256i total0 = _mm256_add_epi32(_mm256_madd_epi16(first, ones), begin);
    const __m256i total1 = _mm256_add_epi32(_mm256_madd_epi16(second, ones), begin);
    const __m256 before0 = add ? _mm256_loadu_ps(sum) : _mm256_setzero_ps();
    const __m256 before1 = add ? _mm256_loadu_ps(sum + kLanes) : _mm256_setzero_ps();
    _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total0), _mm256_mul_ps(row_scale, scale0), before0));
    _mm256_storeu_ps(sum + kLanes,
                     _mm256_fmadd_ps(_mm256_cvtepi32_ps(total1), _mm256_mul_ps(row_scale, scale1), before1));
  }
};

template <int Rows>
inline __attribute__((always_inline)) void tile(const QuantisedRows& x, const QuantisedWeight& weight,
                                                std::int64_t panel, std::int64_t first, std::int64_t last,
                                                bool accumulate, float* sums, std::int64_t ldc) {
  constexpr std::int64_t kGroup = 32, kWords = 4, kWordRow = kPanel * 4;  // bytes from word to word of an output
  const __m256i mask = _mm256_set1_epi8(0xF);
  for (std::int64_t g = first; g < last; ++g) {
    const std::byte* a = x.values + g * kGroup;
    const bool add = accumulate || g > first;
    for (std::int64_t column = 0; column < kPanel; column += 2 * kLanes) {
      const std::uint8_t* b = weight.words(panel, g) + column * 4;
      const __m256i zero = _mm256_setzero_si256();
      RowSums row0{zero, zero}, row1 = row0, row2 = row0, row3 = row0;
      const auto add_rows = [&](__m256i weights0, __m256i weights1, std::int64_t k) __attribute__((always_inline)) {
        row0.add(weights0, weights1, a + k);
        if constexpr (Rows > 1) row1.add(weights0, weights1, a + x.stride + k);
        if constexpr (Rows > 2) row2.add(weights0, weights1, a + 2 * x.stride + k);
        if constexpr (Rows > 3) row3.add(weights0, weights1, a + 3 * x.stride + k);
      };
#pragma GCC unroll 1
      for (std::int64_t w = 0; w < kWords; ++w) {
        const __m256i both0 = load_words(b + w * kWordRow), both1 = load_words(b + w * kWordRow + 32);
        prefetch_words(b + w * kWordRow);
        add_rows(_mm256_and_si256(both0, mask), _mm256_and_si256(both1, mask), 8 * w);
        add_rows(_mm256_and_si256(_mm256_srli_epi16(both0, 4), mask),
                 _mm256_and_si256(_mm256_srli_epi16(both1, 4), mask), 8 * w + 4);
      }
      const std::uint16_t* scales = weight.scales(panel, g) + column;
      prefetch_words(reinterpret_cast<const std::uint8_t*>(scales));
      const __m256 scale0 = scales_of(scales), scale1 = scales_of(scales + kLanes);
      const auto finish = [&](const RowSums& row, std::int64_t i) __attribute__((always_inline)) {
        const std::int64_t at = i * x.groups + g;
        row.finish(x.offsets[at], x.scales[at], scale0, scale1, add, sums + i * ldc + column);
      };
      finish(row0, 0);
      if constexpr (Rows > 1) finish(row1, 1);
      if constexpr (Rows > 2) finish(row2, 2);
      if constexpr (Rows > 3) finish(row3, 3);
    }
  }
}

void multiply_strip(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                    std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  for (std::int64_t i = 0; i < x.rows;) {
    // The last rows in two tiles of about the same size.
    const std::int64_t left = x.rows - i;
    const std::int64_t height =
        left >= 2 * kRows || left <= kRows ? std::min<std::int64_t>(left, kRows) : (left + 1) / 2;
    const QuantisedRows rows = x.row_range(i, height);
    float* to = sums + i * ldc;
    switch (height) {
      case 4: tile<4>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 3: tile<3>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      case 2: tile<2>(rows, weight, panel, first, last, accumulate, to, ldc); break;
      default: tile<1>(rows, weight, panel, first, last, accumulate, to, ldc); break;
    }
    i += height;
  }
}

void multiply(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
              std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  if (weight.format().bits == 8)
    return highway_integer_kernel().multiply(x, weight, panel, first, last, accumulate, sums, ldc);
  // What several tiles read stays near meanwhile.
  const std::int64_t strip = x.rows <= kRows ? last - first : kStripDepth / weight.format().group;
  for (std::int64_t g = first; g < last; g += strip)
    multiply_strip(x, weight, panel, g, std::min(last, g + strip), accumulate || g > first, sums, ldc);
}

constexpr IntegerKernel kAvx2{.name = "avx2",
                              .int8_pairs = true,
                              .int4_pairs = false,
                              .tile_rows = 12,
                              .strip_depth = kStripDepth,
                              .multiply = &multiply};

}  // namespace
}  // namespace chiasm
HWY_POP_ATTRIBUTES

namespace chiasm {
const IntegerKernel* avx2_integer_kernel() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2 : nullptr;
}
}  // namespace chiasm

#else
namespace chiasm {
const IntegerKernel* avx2_integer_kernel() { return nullptr; }
}  // namespace chiasm
#endif
