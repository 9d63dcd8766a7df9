// Weights of the cpu kernels as the checkpoint has them: rows of inputs, one after the other, in the checkpoint's
// dtype.
//
// A tensor that has an owner (tensor.h) is used where it lies, in the mapped file, and its owner is kept; others are
// copied. Kernels turn what they need on its way to the registers (docs/adr/0013-weights-in-place.md).
// Thread contract: immutable once made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "kernels/weight_rows.h"

namespace chiasm {

class RowWeight final : public Weight {
 public:
  // Kernels may read this many rows of every part from its first, and rows to whole blocks of so many bytes: parts that
  // are smaller, or have rows of another length, are copied and padded with zeros.
  static constexpr std::int64_t kFewestRows = 32, kBlockBytes = 16;

  // Outputs [begin, begin + rows) of the weight.
  struct Part {
    std::int64_t begin = 0, rows = 0;
    const std::byte* data = nullptr;  // at any address
    std::int64_t stride = 0;          // bytes from row to row
    std::shared_ptr<const void> owner;
  };

  // Errors: sizes beyond memory.
  static Result<std::unique_ptr<const RowWeight>> make(const WeightRows& weight, ThreadPool& threads);

  DType dtype() const { return dtype_; }
  const std::vector<Part>& parts() const { return parts_; }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // [out_features]
  // Input k of an output.
  float at(std::int64_t output, std::int64_t k) const;

  std::uint64_t bytes() const override { return bytes_; }
  bool in_place() const override { return in_place_; }

 private:
  explicit RowWeight(const WeightRows& weight)
      : Weight(weight.rows(), weight.depth()), dtype_(weight.dtype()), bias_(weight.bias()) {}
  DType dtype_;
  std::vector<Part> parts_;
  std::vector<float> bias_;
  std::uint64_t bytes_ = 0;
  bool in_place_ = false;
};

}  // namespace chiasm
