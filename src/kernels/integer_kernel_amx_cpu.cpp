// Integers with AMX: a tile instruction multiplies 16 rows of 64 inputs with 16 outputs. The packed words are its
// operand as they lie. A group's sums go through a small buffer to be scaled. What is left of a block of rows, groups
// of 32 (scaling them takes longer than tiles save) and int4 are AVX-512 VNNI's: integers are the same either way.
#include <cstring>

#include "kernels/integer_kernels_cpu.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <hwy/base.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-int8")
namespace chiasm {
namespace {

constexpr std::int64_t kTile = 16, kRows = 2 * kTile, kStep = 64;  // rows of a tile, of a block; bytes of a row
constexpr std::int64_t kDepth = 128;                               // of a group

// Palette 1: eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
// In memory from the start: gcc's intrinsic says of its first eight bytes alone that they are read.
constexpr TileConfig kConfig;

inline __attribute__((always_inline)) __m512 scales_of(const std::uint16_t* at) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))), 16));
}

// 32 rows times one panel's group: integers into `out` [32][32].
inline __attribute__((always_inline)) void multiply_group(const std::byte* a, std::int64_t stride,
                                                          const std::uint8_t* words, std::int32_t* out) {
  constexpr std::int64_t kWordRow = kPanel * 4;  // bytes from word to word of the same output
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
#pragma GCC unroll 2
  for (std::int64_t k = 0; k < kDepth; k += kStep) {
    _tile_loadd(4, a + k, stride);
    _tile_loadd(6, words + k / 4 * kWordRow, kWordRow);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(7, words + k / 4 * kWordRow + 64, kWordRow);
    _tile_dpbsud(1, 4, 7);
    _tile_loadd(5, a + kTile * stride + k, stride);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  constexpr std::int64_t kOutRow = kPanel * 4;
  _tile_stored(0, out, kOutRow);
  _tile_stored(1, out + kTile, kOutRow);
  _tile_stored(2, out + kTile * kPanel, kOutRow);
  _tile_stored(3, out + kTile * kPanel + kTile, kOutRow);
}

// Scales the integers of group g and rows [i, i + 32), behind the groups before it.
inline __attribute__((always_inline)) void scale_group(const QuantisedRows& x, std::int64_t i, std::int64_t g,
                                                       const std::uint16_t* scales, const std::int32_t* integers,
                                                       bool add, float* sums, std::int64_t ldc) {
  const __m512 scale0 = scales_of(scales), scale1 = scales_of(scales + 16);
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::int64_t at = (i + r) * x.groups + g;
    float* sum = sums + (i + r) * ldc;
    const __m512i offset = _mm512_set1_epi32(x.offsets[at]);
    const __m512 row = _mm512_set1_ps(x.scales[at]);
    const __m512i low = _mm512_add_epi32(_mm512_load_si512(integers + r * kPanel), offset);
    const __m512i high = _mm512_add_epi32(_mm512_load_si512(integers + r * kPanel + 16), offset);
    const __m512 before0 = add ? _mm512_loadu_ps(sum) : _mm512_setzero_ps();
    const __m512 before1 = add ? _mm512_loadu_ps(sum + 16) : _mm512_setzero_ps();
    _mm512_storeu_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_mul_ps(row, scale0), before0));
    _mm512_storeu_ps(sum + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_mul_ps(row, scale1), before1));
  }
}

void multiply_blocks(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                     std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  _tile_loadconfig(&kConfig);
  // Two, so that one group is scaled while the next one's tiles are multiplied.
  alignas(64) std::int32_t integers[2][kRows * kPanel];
  for (std::int64_t i = 0; i + kRows <= x.rows; i += kRows) {
    for (std::int64_t g = first; g <= last; ++g) {
      if (g < last)
        multiply_group(x.values + i * x.stride + g * kDepth, x.stride, weight.words(panel, g), integers[g & 1]);
      if (const std::int64_t done = g - 1; done >= first)
        scale_group(x, i, done, weight.scales(panel, done), integers[done & 1], accumulate || done > first, sums, ldc);
    }
  }
  _tile_release();
}

void multiply(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
              std::int64_t last, bool accumulate, float* sums, std::int64_t ldc) {
  std::int64_t done = 0;
  if (weight.format().bits == 8 && weight.format().group == kDepth && x.rows >= kRows) {
    multiply_blocks(x, weight, panel, first, last, accumulate, sums, ldc);
    done = x.rows / kRows * kRows;
  }
  if (done == x.rows) return;
  avx512_vnni_integer_kernel()->multiply(x.row_range(done, x.rows - done), weight, panel, first, last, accumulate,
                                         sums + done * ldc, ldc);
}

constexpr IntegerKernel kAmx{.name = "amx", .tile_rows = kRows, .strip_depth = 512, .multiply = &multiply};

// The kernel must be asked before tiles may be used; a machine without them, or an older kernel, says no.
bool tiles_allowed() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace
}  // namespace chiasm
HWY_POP_ATTRIBUTES

namespace chiasm {
const IntegerKernel* amx_integer_kernel() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (avx512_vnni_integer_kernel() == nullptr || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return nullptr;
  constexpr unsigned kTiles = 1U << 24, kInt8 = 1U << 25;
  if ((d & kTiles) == 0 || (d & kInt8) == 0) return nullptr;
  static const bool kAllowed = tiles_allowed();
  return kAllowed ? &kAmx : nullptr;
}
}  // namespace chiasm

#else
namespace chiasm {
const IntegerKernel* amx_integer_kernel() { return nullptr; }
}  // namespace chiasm
#endif
