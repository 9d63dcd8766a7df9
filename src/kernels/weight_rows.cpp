#include "kernels/weight_rows.h"

#include <algorithm>
#include <cstring>

namespace chiasm {

Result<WeightRows> WeightRows::join(std::span<const TensorView> weights, std::span<const TensorView> biases) {
  if (weights.empty()) return fail(Code::kInvalidArgument, "expected a weight, got none");
  WeightRows out;
  out.dtype_ = weights.front().dtype;
  for (const TensorView& weight : weights)
    if (weight.dtype != out.dtype_) out.dtype_ = DType::kF32;
  std::int64_t end = 0;
  for (const TensorView& weight : weights) {
    if (!is_weight_dtype(weight.dtype))
      return fail(Code::kInvalidArgument, "expected a weight of F32, BF16 or F16, got {}", dtype_name(weight.dtype));
    ASSIGN_OR_RETURN(const std::int64_t count, element_count(weight.shape));
    if (weight.shape.empty() || count == 0)
      return fail(Code::kInvalidArgument, "expected a weight matrix, got shape {}", shape_text(weight.shape));
    ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count(weight.shape, weight.dtype));
    if (bytes != weight.bytes.size())
      return fail(Code::kInvalidArgument, "a weight of shape {} and dtype {} has {} bytes, got {}",
                  shape_text(weight.shape), dtype_name(weight.dtype), bytes, weight.bytes.size());
    const std::int64_t rows = weight.shape[0], depth = count / rows;
    if (out.depth_ == 0) out.depth_ = depth;
    if (depth != out.depth_)
      return fail(Code::kInvalidArgument, "weights under each other: expected rows of {}, got {}", out.depth_, depth);
    Part part{end, end + rows, weight.bytes.data(), weight.owner};
    if (weight.dtype != out.dtype_) {
      ASSIGN_OR_RETURN(std::vector<float> values, to_f32(weight));
      out.widened_.push_back(std::move(values));
      part.data = reinterpret_cast<const std::byte*>(out.widened_.back().data());  // moves with its vector
      part.owner = nullptr;
    }
    out.parts_.push_back(part);
    end += rows;
  }
  ASSIGN_OR_RETURN(out.bias_, join_biases(biases, end));
  return out;
}

void WeightRows::widen(std::int64_t i, float* out) const {
  const std::byte* const from = row(i);
  if (dtype_ == DType::kF32) {
    std::memcpy(out, from, static_cast<std::size_t>(depth_) * sizeof(float));
    return;
  }
  for (std::int64_t k = 0; k < depth_; ++k) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from + 2 * k, 2);
    out[k] = dtype_ == DType::kBF16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
}

Result<std::int64_t> quantised_rows(std::span<const QuantisedTensor> weights, Precision precision) {
  if (weights.empty()) return fail(Code::kInvalidArgument, "expected a weight, got none");
  std::int64_t rows = 0;
  for (const QuantisedTensor& tensor : weights) {
    RETURN_IF_ERROR(check_quantised(tensor, precision));
    if (tensor.depth != weights.front().depth)
      return fail(Code::kInvalidArgument, "weights under each other: expected rows of {}, got {}",
                  weights.front().depth, tensor.depth);
    rows += tensor.values.shape[0];
  }
  return rows;
}

Result<std::vector<float>> join_biases(std::span<const TensorView> biases, std::int64_t outputs) {
  std::vector<float> out;
  for (const TensorView& bias : biases) {
    ASSIGN_OR_RETURN(const std::vector<float> values, to_f32(bias));
    out.insert(out.end(), values.begin(), values.end());
  }
  if (!biases.empty() && static_cast<std::int64_t>(out.size()) != outputs)
    return fail(Code::kInvalidArgument, "a bias of {} values for {} outputs", out.size(), outputs);
  return out;
}

}  // namespace chiasm
