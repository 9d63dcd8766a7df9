// Weights in the layout of the cpu kernels: panels of 32 output features, [panel][k][32], in the checkpoint's dtype.
//
// One pass over a panel streams memory in order whether one row or a thousand are multiplied, and a vector of columns
// is always 32 output features at one k. The last panel is padded with zeros.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/ops.h"
#include "tensor/tensor.h"

namespace chiasm {

inline constexpr std::int64_t kPanel = 32;

class PackedWeight final : public Weight {
 public:
  // `weight` [N, K]; a dtype of F32, BF16 or F16. Errors: other dtypes, sizes beyond memory.
  static Result<std::unique_ptr<const PackedWeight>> pack(const TensorView& weight, ThreadPool& threads);

  DType dtype() const { return dtype_; }
  std::int64_t panels() const { return (out_features() + kPanel - 1) / kPanel; }
  std::uint64_t bytes() const override {
    return static_cast<std::uint64_t>(panels() * kPanel * in_features()) * size_of(dtype_);
  }
  // Element (k, lane) of panel p is at panel(p)[k * kPanel + lane].
  const std::byte* panel(std::int64_t p) const {
    return data_.get() + static_cast<std::uint64_t>(p * kPanel * in_features()) * size_of(dtype_);
  }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  PackedWeight(std::int64_t out_features, std::int64_t in_features, DType dtype)
      : Weight(out_features, in_features), dtype_(dtype) {}
  DType dtype_;
  std::unique_ptr<std::byte[], Free> data_;
};

}  // namespace chiasm
