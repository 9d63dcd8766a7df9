// Element types as safetensors names them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace chiasm {

enum class DType : std::uint8_t { kF32, kBF16, kF16, kI32, kI64, kU8 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16: return 2;
    case DType::kI64: return 8;
    case DType::kU8: return 1;
  }
  return 0;
}

std::string_view dtype_name(DType dtype);              // "F32", "BF16", ... as in safetensors headers
Result<DType> dtype_from_name(std::string_view name);  // an error lists the known names

// Scalar conversions; halves are IEEE binary16, round to nearest even.
constexpr float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
std::uint16_t f32_to_bf16(float value);
float f16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);

}  // namespace chiasm
