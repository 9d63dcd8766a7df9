// Quantised weights in the layout of the cpu kernels: panels of 32 output features, group of inputs by group of inputs:
// [panel][group]{ words [group's words][32 outputs], scales BF16 [32] }. One pass over a panel reads memory in order.
// The rounding and the words are precision.h's. Thread contract: immutable once made.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/ops.h"
#include "kernels/packed_weight.h"
#include "kernels/weight_rows.h"
#include "tensor/precision.h"

namespace chiasm {

class QuantisedWeight final : public Weight {
 public:
  // Rounds every row. Errors: sizes beyond memory.
  static Result<std::unique_ptr<const QuantisedWeight>> quantise(const WeightRows& weight, Precision precision,
                                                                 ThreadPool& threads);
  // Tensors that were rounded before, under each other. Errors: shapes or dtypes that are not those of `precision`.
  static Result<std::unique_ptr<const QuantisedWeight>> pack(std::span<const QuantisedTensor> weights,
                                                             std::span<const TensorView> biases, Precision precision,
                                                             ThreadPool& threads);

  const IntegerFormat& format() const { return format_; }
  std::int64_t panels() const { return (out_features() + kPanel - 1) / kPanel; }
  std::int64_t groups() const { return groups_; }
  std::uint64_t bytes() const override {
    return static_cast<std::uint64_t>(panels() * groups_ * block_bytes_) + bias_.size() * sizeof(float);
  }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // [out_features]
  // The words of a group; its scales lie behind them.
  const std::uint8_t* words(std::int64_t panel, std::int64_t group) const {
    return data_.get() + (panel * groups_ + group) * block_bytes_;
  }
  const std::uint16_t* scales(std::int64_t panel, std::int64_t group) const {
    return reinterpret_cast<const std::uint16_t*>(words(panel, group) + format_.group_bytes() * kPanel);
  }
  float at(std::int64_t output, std::int64_t input) const;

 private:
  struct Free {
    void operator()(std::uint8_t* p) const;
  };
  QuantisedWeight(std::int64_t out_features, std::int64_t in_features, Precision precision, std::vector<float> bias)
      : Weight(out_features, in_features, precision),
        format_(integer_format(precision)),
        groups_(format_.groups(in_features)),
        block_bytes_((format_.group_bytes() + 2) * kPanel),
        bias_(std::move(bias)) {}
  Status allocate();
  // row(i, values, scales) fills one row, or gives where it lies.
  template <class Row>
  void fill(ThreadPool& threads, const Row& row);

  IntegerFormat format_;
  std::int64_t groups_, block_bytes_;
  std::vector<float> bias_;
  std::unique_ptr<std::uint8_t[], Free> data_;
};

}  // namespace chiasm
