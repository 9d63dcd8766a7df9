#include "kernels/quantised_weight.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "kernels/huge_memory.h"

namespace chiasm {

Result<std::uint64_t> QuantisedWeight::packed_bytes() const {
  return byte_count({panels(), groups_, block_bytes_}, DType::kU8);
}

template <class Row>
Status QuantisedWeight::fill(ThreadPool& threads, const Row& row) {
  ASSIGN_OR_RETURN(const std::uint64_t bytes, packed_bytes());
  auto* const data = static_cast<std::uint8_t*>(huge_memory(bytes));
  if (data == nullptr) return fail(Code::kResourceExhausted, "no memory for a weight of {} bytes", bytes);
  owner_ = std::shared_ptr<std::uint8_t>(data, [](std::uint8_t* memory) { std::free(memory); });
  data_ = data;
  const std::int64_t words = format_.group_bytes() / 4;
  threads.parallel_for(panels(), [&](std::int64_t p, int) {
    std::vector<std::uint8_t> values(static_cast<std::size_t>(format_.row_bytes(in_features())));
    std::vector<std::uint16_t> scales(static_cast<std::size_t>(groups_));
    std::uint8_t* panel = data + p * groups_ * block_bytes_;
    for (std::int64_t lane = 0; lane < kPanel; ++lane) {
      const std::int64_t at = p * kPanel + lane;
      if (at < out_features()) {
        row(at, values.data(), scales.data());
      } else {
        std::fill(values.begin(), values.end(), std::uint8_t{0});
        std::fill(scales.begin(), scales.end(), std::uint16_t{0});
      }
      for (std::int64_t g = 0; g < groups_; ++g) {
        std::uint8_t* block = panel + g * block_bytes_;
        const std::uint8_t* from = values.data() + g * format_.group_bytes();
        for (std::int64_t w = 0; w < words; ++w) std::memcpy(block + (w * kPanel + lane) * 4, from + 4 * w, 4);
        std::memcpy(block + words * 4 * kPanel + 2 * lane, &scales[static_cast<std::size_t>(g)], 2);
      }
    }
  });
  return {};
}

Result<std::unique_ptr<const QuantisedWeight>> QuantisedWeight::quantise(const WeightRows& weight, Precision precision,
                                                                         ThreadPool& threads) {
  CHECK(is_integer(precision));
  std::unique_ptr<QuantisedWeight> out(new QuantisedWeight(weight.rows(), weight.depth(), precision, weight.bias()));
  RETURN_IF_ERROR(out->fill(threads, [&](std::int64_t i, std::uint8_t* values, std::uint16_t* scales) {
    static thread_local std::vector<float> wide;
    wide.resize(static_cast<std::size_t>(weight.depth()));
    weight.widen(i, wide.data());
    quantise_row(wide.data(), weight.depth(), out->format_, values, scales);
  }));
  return out;
}

Result<std::unique_ptr<const QuantisedWeight>> QuantisedWeight::pack(std::span<const QuantisedTensor> weights,
                                                                     std::span<const TensorView> biases,
                                                                     Precision precision, ThreadPool& threads) {
  CHECK(is_integer(precision));
  const IntegerFormat format = integer_format(precision);
  ASSIGN_OR_RETURN(const std::int64_t rows, quantised_rows(weights, precision));
  const std::int64_t depth = weights.front().depth;
  std::vector<std::int64_t> ends;
  for (const QuantisedTensor& tensor : weights)
    ends.push_back((ends.empty() ? 0 : ends.back()) + tensor.values.shape[0]);
  ASSIGN_OR_RETURN(std::vector<float> bias, join_biases(biases, rows));
  std::unique_ptr<QuantisedWeight> out(new QuantisedWeight(rows, depth, precision, std::move(bias)));
  const std::size_t row_bytes = static_cast<std::size_t>(format.row_bytes(depth)),
                    scale_bytes = static_cast<std::size_t>(format.groups(depth)) * 2;
  RETURN_IF_ERROR(out->fill(threads, [&](std::int64_t i, std::uint8_t* values, std::uint16_t* scales) {
    const auto part = static_cast<std::size_t>(std::ranges::upper_bound(ends, i) - ends.begin());
    const auto row = static_cast<std::size_t>(i - (part == 0 ? 0 : ends[part - 1]));
    std::memcpy(values, weights[part].values.bytes.data() + row * row_bytes, row_bytes);
    std::memcpy(scales, weights[part].scales.bytes.data() + row * scale_bytes, scale_bytes);
  }));
  return out;
}

Result<std::unique_ptr<const QuantisedWeight>> QuantisedWeight::adopt(const Ops::PackedMatrix& packed,
                                                                      std::span<const TensorView> biases) {
  CHECK(is_integer(packed.precision) && packed.out_features > 0 && packed.in_features > 0);
  ASSIGN_OR_RETURN(std::vector<float> bias, join_biases(biases, packed.out_features));
  std::unique_ptr<QuantisedWeight> out(
      new QuantisedWeight(packed.out_features, packed.in_features, packed.precision, std::move(bias)));
  ASSIGN_OR_RETURN(const std::uint64_t bytes, out->packed_bytes());
  if (packed.bytes.size() != bytes)
    return fail(Code::kInvalidArgument, "a packed weight of [{}, {}]: expected {} bytes, got {}", packed.out_features,
                packed.in_features, bytes, packed.bytes.size());
  out->data_ = reinterpret_cast<const std::uint8_t*>(packed.bytes.data());
  out->owner_ = packed.owner;
  return out;
}

void QuantisedWeight::widen(std::int64_t output, float* out) const {
  const std::int64_t panel = output / kPanel, lane = output % kPanel;
  for (std::int64_t g = 0; g < groups_; ++g) {
    std::uint8_t values[128];  // of the group, as precision.h has them
    for (std::int64_t w = 0; w < format_.group_bytes() / 4; ++w)
      std::memcpy(values + 4 * w, words(panel, g) + (w * kPanel + lane) * 4, 4);
    const std::int64_t first = g * format_.group, count = std::min(format_.group, in_features() - first);
    for (std::int64_t k = 0; k < count; ++k) out[first + k] = dequantised(values, scales(panel, g) + lane, format_, k);
  }
}

}  // namespace chiasm
