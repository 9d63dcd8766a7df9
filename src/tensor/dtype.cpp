#include "tensor/dtype.h"

#include <array>
#include <string>
#include <utility>

namespace chiasm {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 22> kNames{{
    {DType::kF32, "F32"},
    {DType::kBF16, "BF16"},
    {DType::kF16, "F16"},
    {DType::kI32, "I32"},
    {DType::kI64, "I64"},
    {DType::kU8, "U8"},
    {DType::kBool, "BOOL"},
    {DType::kI8, "I8"},
    {DType::kI16, "I16"},
    {DType::kU16, "U16"},
    {DType::kU32, "U32"},
    {DType::kU64, "U64"},
    {DType::kF64, "F64"},
    {DType::kC64, "C64"},
    {DType::kF8E4M3, "F8_E4M3"},
    {DType::kF8E5M2, "F8_E5M2"},
    {DType::kF8E8M0, "F8_E8M0"},
    {DType::kF8E4M3Fnuz, "F8_E4M3FNUZ"},
    {DType::kF8E5M2Fnuz, "F8_E5M2FNUZ"},
    {DType::kF6E2M3, "F6_E2M3"},
    {DType::kF6E3M2, "F6_E3M2"},
    {DType::kF4, "F4"},
}};

constexpr std::uint32_t kInfinity = 0x7F800000;  // bits of the f32

}  // namespace

std::string_view dtype_name(DType dtype) {
  for (const auto& [known, name] : kNames)
    if (known == dtype) return name;
  return "?";
}

Result<DType> dtype_from_name(std::string_view name) {
  for (const auto& [dtype, known] : kNames)
    if (known == name) return dtype;
  std::string known_names;
  for (const auto& [dtype, known] : kNames) {
    if (!known_names.empty()) known_names += ", ";
    known_names += known;
  }
  return fail(Code::kUnimplemented, "dtype '{}' is not one of safetensors: expected one of {}", name, known_names);
}

std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // A NaN whose set bits all lie below the cut would become infinity: set the quiet bit.
  if ((bits & 0x7FFFFFFF) > kInfinity) return static_cast<std::uint16_t>(bits >> 16 | 0x0040);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16;
  const std::uint32_t exponent = bits >> 10 & 31;
  const std::uint32_t fraction = bits & 0x3FF;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  const std::uint32_t rebased = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | rebased << 23 | fraction << 13);
}

std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  std::uint32_t half = 0;
  if (magnitude > kInfinity) {
    half = 0x7E00 | (magnitude >> 13 & 0x3FF);
  } else if (magnitude >= 0x47800000) {  // 65536 and above
    half = 0x7C00;
  } else if (magnitude >= 0x38800000) {  // 2^-14: normal; 65520 and above carry into infinity
    half = (magnitude + 0x0FFF + (magnitude >> 13 & 1) - 0x38000000) >> 13;
  } else {  // subnormal: adding 0.5 makes the f32 unit round to multiples of 2^-24
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000;
  }
  return static_cast<std::uint16_t>(sign | half);
}

}  // namespace chiasm
