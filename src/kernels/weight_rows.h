// The tensors of one weight under each other: [N_0, K], [N_1, K], ... read as one matrix [sum of N_i, K], its biases as
// one vector. Used by the implementations of Ops::prepare. Thread contract: immutable; tensors without an owner must
// live as long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "tensor/precision.h"
#include "tensor/tensor.h"

namespace chiasm {

// Biases after each other: `outputs` values, or none. Errors: another number of them, a dtype that is no weight's.
Result<std::vector<float>> join_biases(std::span<const TensorView> biases, std::int64_t outputs);

// Rows of quantised tensors under each other. Errors: none, shapes or dtypes that are not those of `precision`, rows of
// different lengths.
Result<std::int64_t> quantised_rows(std::span<const QuantisedTensor> weights, Precision precision);

class WeightRows {
 public:
  // Rows [begin, end). Without an owner the tensor lives as long as its caller says.
  struct Part {
    std::int64_t begin = 0, end = 0;
    const std::byte* data = nullptr;
    std::shared_ptr<const void> owner;
  };

  // Tensors of several dtypes are all widened to F32. Errors: no tensor, a scalar, nothing in it, a dtype that is not
  // F32, BF16 or F16, rows of different lengths, a bias that does not fit.
  static Result<WeightRows> join(std::span<const TensorView> weights, std::span<const TensorView> biases);

  std::int64_t rows() const { return parts_.back().end; }
  std::int64_t depth() const { return depth_; }
  DType dtype() const { return dtype_; }
  // `depth` elements; they may lie at any address.
  const std::byte* row(std::int64_t i) const {
    std::size_t part = 0;
    while (i >= parts_[part].end) ++part;
    return parts_[part].data + static_cast<std::uint64_t>((i - parts_[part].begin) * depth_) * size_of(dtype_);
  }
  void widen(std::int64_t i, float* out) const;  // row i as f32
  const std::vector<Part>& parts() const { return parts_; }
  const std::vector<float>& bias() const { return bias_; }  // [rows], or empty

 private:
  std::vector<Part> parts_;
  std::vector<std::vector<float>> widened_;
  std::int64_t depth_ = 0;
  DType dtype_ = DType::kF32;
  std::vector<float> bias_;
};

}  // namespace chiasm
