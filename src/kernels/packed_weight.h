// Weights in the layout of the cpu kernels: panels of 32 output features, [panel][k][32], in the checkpoint's dtype.
//
// One pass over a panel streams memory in order whether one row or a thousand are multiplied, and a vector of columns
// is always 32 output features at one k. The last panel is padded with zeros.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "kernels/weight_rows.h"

namespace chiasm {

inline constexpr std::int64_t kPanel = 32;

class PackedWeight final : public Weight {
 public:
  // Errors: sizes beyond memory.
  static Result<std::unique_ptr<const PackedWeight>> pack(const WeightRows& weight, ThreadPool& threads);

  DType dtype() const { return dtype_; }
  std::int64_t panels() const { return (out_features() + kPanel - 1) / kPanel; }
  std::uint64_t bytes() const override {
    return static_cast<std::uint64_t>(panels() * kPanel * in_features()) * size_of(dtype_) +
           bias_.size() * sizeof(float);
  }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // [out_features]
  // Element (k, lane) of panel p is at panel(p)[k * kPanel + lane].
  const std::byte* panel(std::int64_t p) const {
    return data_.get() + static_cast<std::uint64_t>(p * kPanel * in_features()) * size_of(dtype_);
  }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  explicit PackedWeight(const WeightRows& weight)
      : Weight(weight.rows(), weight.depth()), dtype_(weight.dtype()), bias_(weight.bias()) {}
  DType dtype_;
  std::vector<float> bias_;
  std::unique_ptr<std::byte[], Free> data_;
};

}  // namespace chiasm
