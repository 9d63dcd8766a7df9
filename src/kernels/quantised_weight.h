// Quantised weights in the layout of the cpu kernels: panels of 32 output features, group of inputs by group of inputs:
// [panel][group]{ words [group's words][32 outputs], scales BF16 [32] }. One pass over a panel reads memory in order.
// The rounding and the words are precision.h's. Thread contract: immutable once made.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/ops.h"
#include "kernels/weight_rows.h"
#include "tensor/precision.h"

namespace chiasm {

inline constexpr std::int64_t kPanel = 32;

class QuantisedWeight final : public Weight {
 public:
  // Of what packed() gives: a new version wherever a byte lies or is rounded elsewhere.
  static constexpr std::string_view kLayout = "panels of 32, groups in words of 4 bytes/1";

  // Rounds every row. Errors: sizes beyond memory.
  static Result<std::unique_ptr<const QuantisedWeight>> quantise(const WeightRows& weight, Precision precision,
                                                                 ThreadPool& threads);
  // Tensors that were rounded before, under each other. Errors: shapes or dtypes that are not those of `precision`.
  static Result<std::unique_ptr<const QuantisedWeight>> pack(std::span<const QuantisedTensor> weights,
                                                             std::span<const TensorView> biases, Precision precision,
                                                             ThreadPool& threads);

  // As Ops::adopt.
  static Result<std::unique_ptr<const QuantisedWeight>> adopt(const Ops::PackedMatrix& packed,
                                                              std::span<const TensorView> biases);

  const IntegerFormat& format() const { return format_; }
  std::int64_t panels() const { return (out_features() + kPanel - 1) / kPanel; }
  std::int64_t groups() const { return groups_; }
  std::uint64_t bytes() const override { return packed().size() + bias_.size() * sizeof(float); }
  std::span<const std::byte> packed() const override {
    return {reinterpret_cast<const std::byte*>(data_), static_cast<std::size_t>(panels() * groups_ * block_bytes_)};
  }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // [out_features]
  // The words of a group; its scales lie behind them.
  const std::uint8_t* words(std::int64_t panel, std::int64_t group) const {
    return data_ + (panel * groups_ + group) * block_bytes_;
  }
  const std::uint16_t* scales(std::int64_t panel, std::int64_t group) const {
    return reinterpret_cast<const std::uint16_t*>(words(panel, group) + format_.group_bytes() * kPanel);
  }
  void widen(std::int64_t output, float* out) const;  // its row [in_features], as f32

 private:
  QuantisedWeight(std::int64_t out_features, std::int64_t in_features, Precision precision, std::vector<float> bias)
      : Weight(out_features, in_features, precision),
        format_(integer_format(precision)),
        groups_(format_.groups(in_features)),
        block_bytes_((format_.group_bytes() + 2) * kPanel),
        bias_(std::move(bias)) {}
  Result<std::uint64_t> packed_bytes() const;
  // Takes memory, and fills it: row(i, values, scales) gives a row's bytes.
  template <class Row>
  Status fill(ThreadPool& threads, const Row& row);

  IntegerFormat format_;
  std::int64_t groups_, block_bytes_;
  std::vector<float> bias_;
  const std::uint8_t* data_ = nullptr;
  std::shared_ptr<const void> owner_;  // of data_
};

}  // namespace chiasm
