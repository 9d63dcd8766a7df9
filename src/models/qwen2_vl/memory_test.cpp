// How much the vision encoder allocates: in proportion to the patches, also where there are many.

#include <cstdint>

#include <gtest/gtest.h>

#include "kernels/test_idle_ops.h"
#include "models/qwen2_vl/golden.h"
#include "models/qwen2_vl/vision.h"

namespace chiasm {
namespace {

// Counts what is allocated and computes nothing.
class CountingOps final : public IdleOps {
 public:
  std::string_view name() const override { return "counting"; }
  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const override {
    floats += rows * cols;
    return ops_->allocate(rows, cols, dtype);
  }
  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                std::span<const TensorView> biases) const override {
    return ops_->prepare(weights, biases);
  }
  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override {
    return ops_->make_kv_pool(shape);
  }

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
