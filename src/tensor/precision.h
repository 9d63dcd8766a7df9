// What a weight's matrix is computed with: as the checkpoint has it, as small integers with a scale for each group of
// inputs, or as numbers of eight bits; and the rules of that rounding, which every Ops keeps to
// (docs/adr/0012-precision.md).
//
// A quantised matrix [N, K] is two: bytes of unsigned integers, and BF16 scales [N, groups]. K is filled up to whole
// groups with zeros. weight = (integer - bias) * scale. A row is read in words of four bytes: 4 int8 inputs, or 8 int4
// ones of which byte j holds input j in its low half and input 4 + j in its high half.
// Activations are rounded to integers in [-127, 127], a scale for each row and group.
//
// In fp8 both are e4m3 (no infinities, up to 448, the OCP's "E4M3"), with one F32 scale for each row: of a weight,
// which is an output, and of activations. Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "tensor/tensor.h"

namespace chiasm {

// kInt8Fine is int8 in groups of 32, for products whose inputs hold massive values: they spoil their group.
enum class Precision : std::uint8_t { kExact, kInt8, kInt4, kInt8Fine, kFp8 };

std::string_view precision_name(Precision precision);          // "exact", "int8", "int4", "int8 in groups of 32", "fp8"
Result<Precision> precision_from_name(std::string_view name);  // but for kInt8Fine

constexpr bool is_integer(Precision precision) {
  return precision == Precision::kInt8 || precision == Precision::kInt4 || precision == Precision::kInt8Fine;
}

struct IntegerFormat {
  std::int64_t bits = 8, group = 128;
  std::int32_t bias() const { return 1 << (bits - 1); }
  std::int64_t groups(std::int64_t depth) const { return (depth + group - 1) / group; }
  std::int64_t group_bytes() const { return group * bits / 8; }
  std::int64_t row_bytes(std::int64_t depth) const { return groups(depth) * group_bytes(); }
};

// Of integers.
constexpr IntegerFormat integer_format(Precision precision) {
  if (precision == Precision::kInt8) return {};
  return {.bits = precision == Precision::kInt4 ? 4 : 8, .group = 32};
}

// A tensor [N, K] (later dimensions flattened) as quantise_row() makes it: values U8 [N, row_bytes], scales BF16
// [N, groups].
struct QuantisedTensor {
  TensorView values, scales;
  std::int64_t depth = 0;  // K
};
// Errors: a shape or dtype that is not the precision's, no rows.
Status check_quantised(const QuantisedTensor& tensor, Precision precision);

// One row of `depth` weights. Int8: the largest of a group becomes +-127 at most; int4: it becomes -8.
// A group with a weight that is not finite gets a scale that is not.
void quantise_row(const float* weights, std::int64_t depth, const IntegerFormat& format, std::uint8_t* values,
                  std::uint16_t* scales);

// Weight k of such a row.
float dequantised(const std::uint8_t* values, const std::uint16_t* scales, const IntegerFormat& format, std::int64_t k);

// `count` activations of one group: integers, and the scale. Values too small for a scale are zeros; where one is not
// finite, the scale is not.
float quantise_activations(const float* x, std::int64_t count, std::int8_t* values);
// Below this a group's largest value has no reciprocal worth having.
inline constexpr float kLeastActivation = 1e-30F;

// e4m3: round to nearest even, what is beyond 448 becomes it; what is not a number stays none.
inline constexpr float kMostFp8 = 448;
std::uint8_t f32_to_e4m3(float x);
float e4m3_to_f32(std::uint8_t code);

// Rows of codes are filled up with zeros to whole 16 bytes.
constexpr std::int64_t fp8_row_bytes(std::int64_t depth) { return (depth + 15) / 16 * 16; }

// A row of weights or of activations: the largest becomes 448. Returns the scale, by which the codes' numbers are to be
// multiplied. Rows too small for a scale are zeros with the scale 0; where a value is not finite all are zeros and the
// scale is not a number.
float round_row_to_fp8(const float* x, std::int64_t count, std::uint8_t* codes);

}  // namespace chiasm
