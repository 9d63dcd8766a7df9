// Element types as safetensors names them, and the conversions between the floating-point ones that are computed with.
//
// Thread contract: pure functions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace chiasm {

// All that the format knows, so that a file with a tensor that nobody asks for can be read. Computed with: the first
// three.
enum class DType : std::uint8_t {
  kF32,
  kBF16,
  kF16,
  kI32,
  kI64,
  kU8,
  kBool,
  kI8,
  kI16,
  kU16,
  kU32,
  kU64,
  kF64,
  kC64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kF6E2M3,
  kF6E3M2,
  kF4,
};

constexpr std::size_t bits_of(DType dtype) {
  switch (dtype) {
    case DType::kI64:
    case DType::kU64:
    case DType::kF64:
    case DType::kC64: return 64;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32: return 32;
    case DType::kBF16:
    case DType::kF16:
    case DType::kI16:
    case DType::kU16: return 16;
    case DType::kU8:
    case DType::kI8:
    case DType::kBool:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
    case DType::kF8E4M3Fnuz:
    case DType::kF8E5M2Fnuz: return 8;
    case DType::kF6E2M3:
    case DType::kF6E3M2: return 6;
    case DType::kF4: return 4;
  }
  return 0;
}

// Bytes; 0 where an element is smaller than one.
constexpr std::size_t size_of(DType dtype) { return bits_of(dtype) / 8; }

// Whether weights may be of it.
constexpr bool is_weight_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

std::string_view dtype_name(DType dtype);              // "F32", "BF16", ... as in safetensors headers
Result<DType> dtype_from_name(std::string_view name);  // kUnimplemented lists the known names

// Scalar conversions; halves are IEEE binary16, round to nearest even.
constexpr float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
std::uint16_t f32_to_bf16(float value);
float f16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);

}  // namespace chiasm
