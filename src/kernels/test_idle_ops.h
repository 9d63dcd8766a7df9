// For tests only: an Ops that computes nothing, for tests of what is asked of one. Memory and pools are the deriver's.
#pragma once

#include "kernels/ops.h"

namespace chiasm {

class IdleOps : public Ops {
 public:
  void upload(std::span<const float>, View) const override {}
  Status download(ConstView, std::span<float>) const override { return {}; }
  void matmul(ConstView, const Weight&, const Epilogue&, View) const override {}
  void embed(std::span<const std::int32_t>, const Weight&, View) const override {}
  void layer_norm(ConstView, const float*, const float*, float, View) const override {}
  void rms_norm(ConstView, const float*, float, View) const override {}
  void silu_mul(ConstView, ConstView, View) const override {}
  void rope_table(const RopeAngles&, View, View) const override {}
  void rope(View, std::int64_t, const RopeTable&) const override {}
  void gather_rows(ConstView, std::span<const std::int32_t>, View) const override {}
  Status argmax(ConstView, std::span<std::int32_t>) const override { return {}; }
  void attention(ConstView, ConstView, ConstView, std::int64_t, float, const Segments&, View) const override {}
  void kv_write(ConstView, ConstView, const StepRows&, std::int64_t, KvPool&) const override {}
  void paged_attention(ConstView, std::int64_t, float, const StepRows&, std::int64_t, const KvPool&,
                       View) const override {}
  void copy_kv_block(std::int32_t, std::int32_t, KvPool&) const override {}
};

}  // namespace chiasm
