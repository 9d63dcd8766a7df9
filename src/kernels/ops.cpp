#include "kernels/ops.h"

#include "base/check.h"

namespace chiasm {

std::uint64_t Ops::kv_block_bytes(const KvShape& shape) const {
  return static_cast<std::uint64_t>(shape.layers * shape.kv_heads * shape.head_dim * 2 * kKvBlock) * sizeof(float);
}

Result<std::unique_ptr<const StepRows>> Ops::make_step(std::span<const SequenceRows> sequences, std::int64_t,
                                                       const KvShape&) const {
  return std::make_unique<const StepRows>(sequences);
}

Result<bool> Ops::renew_step(std::span<const SequenceRows> sequences, std::int64_t heads, const KvShape& shape,
                             std::unique_ptr<const StepRows>& step) const {
  ASSIGN_OR_RETURN(step, make_step(sequences, heads, shape));
  return false;
}

Result<std::unique_ptr<const Weight>> Ops::quantise(std::span<const TensorView>, std::span<const TensorView>,
                                                    Precision precision) const {
  return fail(Code::kUnimplemented, "'{}' does not compute in {}: choose --device cpu, or --precision exact", name(),
              precision_name(precision));
}

Result<std::unique_ptr<const Weight>> Ops::prepare_quantised(std::span<const QuantisedTensor>,
                                                             std::span<const TensorView>, Precision precision) const {
  return fail(Code::kUnimplemented, "'{}' does not compute in {}: choose --device cpu, or the unquantised checkpoint",
              name(), precision_name(precision));
}

Result<std::unique_ptr<const Recording>> Ops::record(const std::function<void()>&) const {
  return fail(Code::kUnimplemented, "{} does not record", name());
}

void Ops::replay(const Recording&) const { CHECK(false); }

Result<std::unique_ptr<const Segments>> Ops::make_segments(std::span<const std::int64_t> cu_seqlens) const {
  return std::make_unique<const Segments>(cu_seqlens);
}

}  // namespace chiasm
