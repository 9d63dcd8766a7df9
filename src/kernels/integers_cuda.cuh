// Small integers as the card reads them: 16 bytes at a time, to BF16 in registers. The layout is tensor/precision.h's.
// Included by *_cuda.cu only.
#pragma once

#include <cstdint>

#include "kernels/cuda_common.cuh"

namespace chiasm {

// What a lane reads at once, 16 bytes, and how it becomes BF16: a multiple of 8 inputs of one group.
struct Bf16Inputs {
  static constexpr int kInputs = 8;
  static constexpr bool kScaled = false;
  __device__ static uint4 eight(const uint4& raw, float, int) { return raw; }
};

// Byte i of a word as a float: 2^23 + byte, less 2^23 + bias. Exact.
template <int kBias>
__device__ inline float byte_of(std::uint32_t word, int i) {
  return __uint_as_float(__byte_perm(word, 0x4B000000, 0x7440 + i)) - (8388608.0F + kBias);
}
// Bytes 0 to 3 of two words, scaled.
template <int kBias>
__device__ inline void bytes_of(std::uint32_t low, std::uint32_t high, float scale, float* out) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[i] = byte_of<kBias>(low, i) * scale;
    out[4 + i] = byte_of<kBias>(high, i) * scale;
  }
}
__device__ inline uint4 rounded8(const float* v) {
  return make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}
__device__ inline std::uint32_t word_of(const uint4& raw, int i) {
  return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
}

struct Int8Inputs {
  static constexpr int kInputs = 16;
  static constexpr bool kScaled = true;
  // Inputs 8 * unit and on.
  __device__ static void eight(std::uint32_t low, std::uint32_t high, float scale, float* out) {
    bytes_of<128>(low, high, scale, out);
  }
  __device__ static uint4 eight(const uint4& raw, float scale, int unit) {
    float v[8];
    eight(word_of(raw, 2 * unit), word_of(raw, 2 * unit + 1), scale, v);
    return rounded8(v);
  }
};

struct Int4Inputs {
  static constexpr int kInputs = 32;
  static constexpr bool kScaled = true;
  __device__ static void eight(std::uint32_t word, float scale, float* out) {
    bytes_of<8>(word & 0x0F0F0F0FU, word >> 4 & 0x0F0F0F0FU, scale, out);
  }
  __device__ static uint4 eight(const uint4& raw, float scale, int unit) {
    float v[8];
    eight(word_of(raw, unit), scale, v);
    return rounded8(v);
  }
};

}  // namespace chiasm
