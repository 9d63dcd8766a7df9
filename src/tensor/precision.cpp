#include "tensor/precision.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

namespace chiasm {
namespace {

constexpr std::string_view kNames[] = {"exact", "int8", "int4", "int8 in groups of 32", "fp8"};

constexpr std::uint32_t kSignless = 0x7FFFFFFF, kInfinity = 0x7F800000;

// As bits, so that what is not a number is larger than every number.
std::uint32_t size_bits(float x) { return std::bit_cast<std::uint32_t>(x) & kSignless; }

// To the nearest integer, ties to even, of |x| below 2^22: what adding and taking away 1.5 * 2^23 leaves.
std::int32_t nearest(float x) { return std::bit_cast<std::int32_t>(x + 12582912.0F) - 0x4B400000; }

// As size bits: of |x| below 448.5 to e4m3's bits without the sign. Without branches, so that loops become vectors.
std::uint32_t e4m3_bits(std::uint32_t size) {
  const std::uint32_t normal = ((size + 0x7FFFF + (size >> 20 & 1)) >> 20) - ((127 - 7) << 3);
  // Below 2^-6: adding 2^14 leaves a multiple of 2^-9, which is counted from there.
  const std::uint32_t few = std::bit_cast<std::uint32_t>(std::bit_cast<float>(size) + 16384.0F) - 0x46800000;
  return size < 0x3C800000 ? few : normal;
}

// The largest |x| of a row, and what is not a number where there is one.
std::uint32_t largest_bits(const float* x, std::int64_t count) {
  std::uint32_t most = 0;
  for (std::int64_t k = 0; k < count; ++k) most = std::max(most, size_bits(x[k]));
  return most;
}

// Of activations whose largest is this, where they are too small for a scale or one is not finite: their scale, and all
// of them are zeros.
std::optional<float> scale_of_zeros(std::uint32_t most) {
  if (most >= kInfinity) return std::bit_cast<float>(0x7FC00000U);
  return std::bit_cast<float>(most) < kLeastActivation ? std::optional(0.0F) : std::nullopt;
}

// The BF16 next to x away from zero: integers of a group that is divided by it fit their range.
std::uint16_t bf16_away(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto cut = static_cast<std::uint16_t>(bits >> 16);
  return (bits & 0xFFFF) == 0 || cut == 0x7F7F ? cut : static_cast<std::uint16_t>(cut + 1);
}

}  // namespace

std::string_view precision_name(Precision precision) { return kNames[static_cast<std::size_t>(precision)]; }

Result<Precision> precision_from_name(std::string_view name) {
  for (const Precision precision : {Precision::kExact, Precision::kInt8, Precision::kInt4, Precision::kFp8})
    if (name == precision_name(precision)) return precision;
  return fail(Code::kInvalidArgument, "precision: expected exact, int8, int4 or fp8, got '{}'", name);
}

Status check_quantised(const QuantisedTensor& tensor, Precision precision) {
  const IntegerFormat format = integer_format(precision);
  const auto& values = tensor.values;
  const auto& scales = tensor.scales;
  const auto expect = [](const TensorView& view, DType dtype, std::int64_t cols, std::string_view what) -> Status {
    ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count(view.shape, view.dtype));
    if (view.dtype != dtype || view.shape.size() != 2 || view.shape[1] != cols || view.bytes.size() != bytes)
      return fail(Code::kInvalidArgument, "a quantised weight's {}: expected {} rows of {}, got {} of shape {}", what,
                  dtype_name(dtype), cols, dtype_name(view.dtype), shape_text(view.shape));
    return {};
  };
  if (tensor.depth < 1) return fail(Code::kInvalidArgument, "a quantised weight of no inputs");
  RETURN_IF_ERROR(expect(values, DType::kU8, format.row_bytes(tensor.depth), "integers"));
  RETURN_IF_ERROR(expect(scales, DType::kBF16, format.groups(tensor.depth), "scales"));
  if (values.shape[0] < 1 || values.shape[0] != scales.shape[0])
    return fail(Code::kInvalidArgument, "a quantised weight of {} rows with {} rows of scales", values.shape[0],
                scales.shape[0]);
  return {};
}

void quantise_row(const float* weights, std::int64_t depth, const IntegerFormat& format, std::uint8_t* values,
                  std::uint16_t* scales) {
  constexpr std::int64_t kMost = 128;  // of a group
  const auto low = static_cast<float>(format.bits == 8 ? -127 : -8),
             high = static_cast<float>(format.bits == 8 ? 127 : 7);
  for (std::int64_t g = 0; g < format.groups(depth); ++g) {
    const float* from = weights + g * format.group;
    const std::int64_t count = std::min(format.group, depth - g * format.group);
    float group[kMost] = {};
    std::memcpy(group, from, static_cast<std::size_t>(count) * sizeof(float));
    std::uint32_t most = 0;
    for (const float value : group) most = std::max(most, size_bits(value));
    float largest = std::bit_cast<float>(most);
    if (format.bits == 4) {  // -8 has no +8 beside it: the largest takes it
      bool negative = false;
      for (std::int64_t k = 0; k < count; ++k) negative |= size_bits(group[k]) == most && std::signbit(group[k]);
      largest = negative ? largest : -largest;
    }
    const std::uint16_t scale = most >= kInfinity ? static_cast<std::uint16_t>(most >> 16 | (most & 0xFFFF ? 1 : 0))
                                                  : bf16_away(largest / (format.bits == 8 ? 127.0F : 8.0F));
    scales[g] = scale;
    const float inverse = 1.0F / bf16_to_f32(scale);
    const bool usable = most < kInfinity && std::isfinite(inverse);
    if (!usable && most < kInfinity) scales[g] = 0;  // too small to divide by
    std::uint8_t integers[kMost];
    for (std::int64_t k = 0; k < kMost; ++k) {
      const float x = usable ? group[k] * inverse : 0.0F;
      integers[k] = static_cast<std::uint8_t>(nearest(std::min(std::max(x, low), high)) + format.bias());
    }
    std::uint8_t* to = values + g * format.group_bytes();
    if (format.bits == 8) {
      std::memcpy(to, integers, static_cast<std::size_t>(format.group));
    } else {
      for (std::int64_t word = 0; word < format.group / 8; ++word)
        for (std::int64_t j = 0; j < 4; ++j)
          to[4 * word + j] = static_cast<std::uint8_t>(integers[8 * word + j] | integers[8 * word + 4 + j] << 4);
    }
  }
}

float dequantised(const std::uint8_t* values, const std::uint16_t* scales, const IntegerFormat& format,
                  std::int64_t k) {
  const std::int32_t integer = format.bits == 8 ? values[k] : values[k / 8 * 4 + k % 4] >> (k % 8 < 4 ? 0 : 4) & 0xF;
  // Groups are powers of two, and a division takes longer than all the rest.
  const std::int64_t group = k >> std::countr_zero(static_cast<std::uint64_t>(format.group));
  return static_cast<float>(integer - format.bias()) * bf16_to_f32(scales[group]);
}

float quantise_activations(const float* x, std::int64_t count, std::int8_t* values) {
  const std::uint32_t most = largest_bits(x, count);
  if (const auto scale = scale_of_zeros(most)) {
    std::fill_n(values, count, std::int8_t{0});
    return *scale;
  }
  const auto largest = std::bit_cast<float>(most);
  const float inverse = 127.0F / largest;
  for (std::int64_t k = 0; k < count; ++k) values[k] = static_cast<std::int8_t>(nearest(x[k] * inverse));
  return largest / 127.0F;
}

std::uint8_t f32_to_e4m3(float x) {
  const auto sign = static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(x) >> 24 & 0x80);
  const std::uint32_t size = size_bits(x);
  if (size > kInfinity) return sign | 0x7F;
  return static_cast<std::uint8_t>(sign | e4m3_bits(std::min(size, std::bit_cast<std::uint32_t>(kMostFp8))));
}

float e4m3_to_f32(std::uint8_t code) {
  const std::uint32_t sign = std::uint32_t{code & 0x80U} << 24, size = code & 0x7FU;
  if (size == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000);
  const std::uint32_t magnitude =
      size < 8 ? std::bit_cast<std::uint32_t>(static_cast<float>(size) * 0x1p-9F) : (size << 20) + ((127 - 7) << 23);
  return std::bit_cast<float>(sign | magnitude);
}

float round_row_to_fp8(const float* x, std::int64_t count, std::uint8_t* codes) {
  const std::uint32_t most = largest_bits(x, count);
  if (const auto scale = scale_of_zeros(most)) {
    std::fill_n(codes, count, std::uint8_t{0});
    return *scale;
  }
  const auto largest = std::bit_cast<float>(most);
  const float inverse = kMostFp8 / largest;  // the largest may become a last bit more than 448, which rounds to it
  for (std::int64_t k = 0; k < count; ++k) {
    const auto bits = std::bit_cast<std::uint32_t>(x[k] * inverse);
    codes[k] = static_cast<std::uint8_t>((bits >> 24 & 0x80) | e4m3_bits(bits & kSignless));
  }
  return largest / kMostFp8;
}

}  // namespace chiasm
