#include "kernels/ops.h"

#include <algorithm>

#include "base/check.h"

namespace chiasm {

StepProjections::StepProjections(View qkv, std::int64_t heads, const KvShape& shape) {
  const std::int64_t q_width = heads * shape.head_dim, kv_width = shape.kv_heads * shape.head_dim;
  CHECK(qkv.cols == q_width + 2 * kv_width);
  q = qkv.col_range(0, q_width);
  k = qkv.col_range(q_width, kv_width);
  v = qkv.col_range(q_width + kv_width, kv_width);
  q_and_k = qkv.col_range(0, q_width + kv_width);
}

Shares even_shares(std::int64_t n, int parts) {
  Shares out;
  out.width = (n + parts - 1) / parts;
  if (n % parts != 0) out.width = (out.width + 7) / 8 * 8;
  for (std::int64_t i = 0; i < parts; ++i) {
    const std::int64_t begin = std::min(n, i * out.width);
    out.of_part.push_back({begin, std::min(n, begin + out.width) - begin});
  }
  return out;
}

std::uint64_t Ops::kv_block_bytes(const KvShape& shape) const {
  return static_cast<std::uint64_t>(shape.layers * shape.kv_heads * shape.head_dim * 2 * kKvBlock) * sizeof(float);
}

Result<std::unique_ptr<const StepRows>> Ops::make_step(std::span<const SequenceRows> sequences, std::int64_t,
                                                       const KvShape&) const {
  return std::make_unique<const StepRows>(sequences);
}

Result<bool> Ops::renew_step(std::span<const SequenceRows>, const StepTokens&, std::int64_t, const KvShape&,
                             std::unique_ptr<const StepRows>&) const {
  return fail(Code::kUnimplemented, "{} does not record", name());
}

void Ops::begin_step(const StepRows&, const Weight&, View, View, View) const { CHECK(false); }
void Ops::end_step(ConstView, const StepRows&) const { CHECK(false); }
Status Ops::likeliest(const StepRows&, std::span<std::int32_t>) const {
  return fail(Code::kUnimplemented, "{} does not record", name());
}

Result<std::unique_ptr<const Weight>> Ops::prepare_split(std::span<const TensorView> weights,
                                                         std::span<const TensorView> biases, const Split&) const {
  return prepare(weights, biases);
}

Result<std::unique_ptr<const Weight>> Ops::quantise(std::span<const TensorView>, std::span<const TensorView>,
                                                    Precision precision) const {
  if (precision == Precision::kFp8)
    return fail(Code::kUnimplemented,
                "'{}' does not compute in fp8, which needs one card: choose --device cuda:0 (or another number), or "
                "--precision int8 on the CPU, exact on several cards",
                name());
  return fail(Code::kUnimplemented, "'{}' does not compute in {}: choose --device cpu, or --precision exact", name(),
              precision_name(precision));
}

Result<std::unique_ptr<const Weight>> Ops::prepare_quantised(std::span<const QuantisedTensor>,
                                                             std::span<const TensorView>, Precision precision) const {
  return fail(Code::kUnimplemented, "'{}' does not compute in {}: choose --device cpu, or the unquantised checkpoint",
              name(), precision_name(precision));
}

Result<std::unique_ptr<const Weight>> Ops::adopt(const PackedMatrix&, std::span<const TensorView>) const {
  return fail(Code::kUnimplemented, "{} has no packed layout", name());
}

Result<std::unique_ptr<const Recording>> Ops::record(const std::function<void()>&) const {
  return fail(Code::kUnimplemented, "{} does not record", name());
}

void Ops::replay(const Recording&) const { CHECK(false); }

Result<std::unique_ptr<const Segments>> Ops::make_segments(std::span<const std::int64_t> cu_seqlens) const {
  return std::make_unique<const Segments>(cu_seqlens);
}

void Ops::norm_matmul(ConstView x, const float* norm_weight, float eps, View normed, const Weight& weight,
                      const Epilogue& epilogue, View out) const {
  rms_norm(x, norm_weight, eps, normed);
  matmul(normed, weight, epilogue, out);
}

void Ops::rope_matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, std::int64_t heads,
                      const RopeTable& table, View out) const {
  matmul(x, weight, epilogue, out);
  rope(out.col_range(0, out.cols / 3 * 2), 2 * heads, table);  // q and k, side by side
}

void Ops::step_attention(View qkv, std::int64_t heads, const RopeTable& table, float scale, const StepRows& step,
                         std::int64_t layer, KvPool& pool, View out) const {
  const StepProjections parts(qkv, heads, pool.shape());
  rope(parts.q_and_k, heads + pool.shape().kv_heads, table);
  kv_write(parts.k, parts.v, step, layer, pool);
  paged_attention(parts.q, heads, scale, step, layer, pool, out);
}

}  // namespace chiasm
