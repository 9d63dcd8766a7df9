// Small weights as the card reads them: 16 bytes at a time, to BF16 in registers. The layout is tensor/precision.h's,
// or e4m3 bytes. Included by *_cuda.cu only.
#pragma once

#include <cstdint>

#include "kernels/cuda_common.cuh"

namespace chiasm {

// --- to pairs of BF16 without a float between: on the tensor cores' way there is time for one or two instructions a
// weight, no more.
__device__ inline std::uint32_t subtract2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("sub.rn.bf16x2 %0, %1, %2;\n" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ inline std::uint32_t multiply2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("mul.rn.bf16x2 %0, %1, %2;\n" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ inline uint4 multiply8(const uint4& v, std::uint32_t by) {
  return make_uint4(multiply2(v.x, by), multiply2(v.y, by), multiply2(v.z, by), multiply2(v.w, by));
}
__host__ __device__ constexpr std::uint32_t pair_of(std::uint32_t bf16_bits) { return bf16_bits << 16 | bf16_bits; }
// A BF16 of 128 (0x4300) has ones as its last place: seven bits of an integer there are 128 + integer.
constexpr std::uint32_t k128 = pair_of(0x4300), k136 = pair_of(0x4308);

// Two of a word's bytes (unsigned, less 128): the eighth bit says whether 128 or 256 is too much. Exact.
__device__ inline std::uint32_t less_128(std::uint32_t word, int selector) {
  const std::uint32_t wide = __byte_perm(word, k128, selector);
  return subtract2(wide & 0xFF7FFF7FU, (wide & 0xFF80FF80U) ^ 0x00800080U);
}
__device__ inline uint2 int8_pairs(std::uint32_t word) {
  return make_uint2(less_128(word, 0x5150), less_128(word, 0x5352));
}
// Eight halves of bytes less 8, in the order of precision.h. Exact.
__device__ inline uint4 int4_pairs(std::uint32_t word) {
  const std::uint32_t low = word & 0x0F0F0F0FU, high = word >> 4 & 0x0F0F0F0FU;
  return make_uint4(subtract2(__byte_perm(low, k128, 0x5150), k136), subtract2(__byte_perm(low, k128, 0x5352), k136),
                    subtract2(__byte_perm(high, k128, 0x5150), k136), subtract2(__byte_perm(high, k128, 0x5352), k136));
}
// Four e4m3: their bits in BF16's places are 2^-120 of what they mean, subnormals too. Exact but for NaN, which becomes
// 480.
__device__ inline uint2 fp8_pairs(std::uint32_t word) {
  constexpr std::uint32_t k2To120 = pair_of(0x7B80);
  const std::uint32_t high = (word & 0x80808080U) | (word >> 4 & 0x07070707U), low = word << 4 & 0xF0F0F0F0U;
  return make_uint2(multiply2(__byte_perm(low, high, 0x5140), k2To120),
                    multiply2(__byte_perm(low, high, 0x7362), k2To120));
}

// Where a product is multiplied by the scales.
enum class Scaling : std::uint8_t {
  kNone,
  kInputs,   // the weights are, and rounded to BF16 again
  kGroups,   // a group's sum is: all lanes' inputs of so many reads are one group
  kOutputs,  // the sum is
};

__device__ inline std::uint32_t word_of(const uint4& raw, int i) {
  return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
}

// What a lane reads at once, 16 bytes, and how its inputs 8 * unit and on become BF16. Four lanes read in a row; where
// the scale of read `chunk` of the lane `quad` of them stands in the row's.
struct Bf16Inputs {
  static constexpr int kInputs = 8, kReads = 4, kReadsOfGroup = 1;
  static constexpr Scaling kScaling = Scaling::kNone;
  using Scale = float;
  __device__ static uint4 eight(const uint4& raw, int) { return raw; }
};

struct Int8Inputs {
  static constexpr int kInputs = 16, kReads = 2, kReadsOfGroup = 2, kGroupBytes = 128;
  static constexpr Scaling kScaling = Scaling::kGroups;
  using Scale = bf16;
  __device__ static uint4 eight(const uint4& raw, int unit) {
    const uint2 a = int8_pairs(word_of(raw, 2 * unit)), b = int8_pairs(word_of(raw, 2 * unit + 1));
    return make_uint4(a.x, a.y, b.x, b.y);
  }
  __device__ static int scale_at(int chunk, int) { return chunk / 2; }
};

struct Int8FineInputs : Int8Inputs {
  static constexpr int kReadsOfGroup = 1, kGroupBytes = 32;
  static constexpr Scaling kScaling = Scaling::kInputs;
  __device__ static int scale_at(int chunk, int quad) { return chunk * 2 + quad / 2; }
};

struct Int4Inputs {
  static constexpr int kInputs = 32, kReads = 2, kReadsOfGroup = 1, kGroupBytes = 16;
  static constexpr Scaling kScaling = Scaling::kInputs;
  using Scale = bf16;
  __device__ static uint4 eight(const uint4& raw, int unit) { return int4_pairs(word_of(raw, unit)); }
  __device__ static int scale_at(int chunk, int quad) { return chunk * 4 + quad; }
};

struct Fp8Inputs {
  static constexpr int kInputs = 16, kReads = 2, kReadsOfGroup = 1;
  static constexpr Scaling kScaling = Scaling::kOutputs;
  using Scale = float;
  __device__ static uint4 eight(const uint4& raw, int unit) {
    const uint2 a = fp8_pairs(word_of(raw, 2 * unit)), b = fp8_pairs(word_of(raw, 2 * unit + 1));
    return make_uint4(a.x, a.y, b.x, b.y);
  }
};

}  // namespace chiasm
