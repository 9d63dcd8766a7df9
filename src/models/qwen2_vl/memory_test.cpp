// How much the vision encoder allocates: in proportion to the patches, also where there are many.

#include <cstdint>

#include <gtest/gtest.h>

#include "models/qwen2_vl/golden.h"
#include "models/qwen2_vl/vision.h"

namespace chiasm {
namespace {

// Counts what is allocated and computes nothing.
class CountingOps final : public Ops {
 public:
  std::string_view name() const override { return "counting"; }
  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const override {
    floats += rows * cols;
    return ops_->allocate(rows, cols, dtype);
  }
  void upload(std::span<const float>, View) const override {}
  Status download(ConstView, std::span<float>) const override { return {}; }
  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                std::span<const TensorView> biases) const override {
    return ops_->prepare(weights, biases);
  }
  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override {
    return ops_->make_kv_pool(shape);
  }
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

  mutable std::int64_t floats = 0;

 private:
  std::unique_ptr<Ops> ops_ = make_ref_ops();
};

TEST(VisionMemory, GrowsWithThePatchesOnly) {
  std::string why;
  auto golden = find_golden_set("committed", why);
  if (golden == nullptr) golden = find_golden_set("shared", why);
  if (golden == nullptr) GTEST_SKIP() << why;
  const CountingOps ops;
  const auto model = must(load_qwen2_vl_vision(must(Checkpoint::open(golden->model_dir, Role::kVision)), ops));
  const VisionConfig& config = model->config();
  const auto floats_for = [&](std::int64_t side) {
    const Matrix pixels(side * side, config.patch_width());
    const Grid grid{1, side, side};
    ops.floats = 0;
    must(model->encode(pixels.view(), std::span(&grid, 1)));
    return ops.floats;
  };
  // Everything that one call allocates, freed early or not: x, q, k, v and the attended values, the angles, a quarter
  // as many features; and what is held for a piece of rows at a time.
  const std::int64_t per_patch = 5 * config.embed_dim + config.head_dim() + config.hidden_size / config.merge_unit();
  const std::int64_t pieces = 1024 * config.embed_dim * (1 + config.mlp_ratio + 2);
  for (const std::int64_t side : {32, 64, 128}) EXPECT_LE(floats_for(side), side * side * per_patch + pieces) << side;
}

}  // namespace
}  // namespace chiasm
