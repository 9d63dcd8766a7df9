#include "features/feature.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace chiasm {
namespace {

constexpr std::int64_t kMaxGridSide = 1'000'000;  // three of them multiply within 64 bits

bool is_finite(float value) { return (std::bit_cast<std::uint32_t>(value) & 0x7f800000U) != 0x7f800000U; }

float rounded(float value, DType dtype) {
  if (dtype == DType::kF16) return f16_to_f32(f32_to_f16(value));
  return bf16_to_f32(f32_to_bf16(value));
}

FeatureId feature_id(std::string_view tenant, const Digest& vision, const Digest& preprocess, std::int64_t files,
                     const Digest& image) {
  return {Hasher()
              .add("kind", std::string_view("chiasm.feature_id/1"))
              .add("tenant", tenant)
              .add("vision_digest", vision)
              .add("preprocess_digest", preprocess)
              .add("files", files)
              .add("image_digest", image)
              .finish()};
}

std::string grid_text(const std::array<std::int64_t, 3>& grid) {
  return fmt::format("{},{},{}", grid[0], grid[1], grid[2]);
}

}  // namespace

Result<FeatureId> FeatureId::from_hex(std::string_view hex) {
  ASSIGN_OR_RETURN(const Digest digest, Digest::from_hex(hex));
  return FeatureId{digest};
}

Digest image_digest(std::span<const std::span<const std::byte>> files) {
  if (files.size() == 1) return digest_of(files[0]);
  Hasher hasher;
  hasher.add("frames", static_cast<std::int64_t>(files.size()));
  for (const auto& file : files) hasher.add("frame", digest_of(file));
  return hasher.finish();
}

FeatureKey feature_key(std::string_view tenant, const Digest& vision, const Digest& preprocess,
                       std::span<const std::span<const std::byte>> files) {
  FeatureKey key{.vision_digest = vision, .preprocess_digest = preprocess, .image_digest = image_digest(files)};
  key.id = feature_id(tenant, vision, preprocess, static_cast<std::int64_t>(files.size()), key.image_digest);
  return key;
}

bool belongs_to(const FeatureMeta& meta, std::string_view tenant, std::int64_t temporal_patch_size) {
  const auto made_of = [&](std::int64_t files) {
    return feature_id(tenant, meta.vision_digest, meta.preprocess_digest, files, meta.image_digest) == meta.id;
  };
  const std::int64_t groups = meta.grid_thw[0];
  if (groups < 1 || groups > kMaxGridSide) return false;
  for (std::int64_t last = 1; last <= temporal_patch_size; ++last)
    if (made_of((groups - 1) * temporal_patch_size + last)) return true;
  return false;
}

Feature make_feature(const FeatureKey& key, std::array<std::int64_t, 3> grid_thw, std::string model, Matrix rows) {
  return {.meta = {.id = key.id,
                   .vision_digest = key.vision_digest,
                   .preprocess_digest = key.preprocess_digest,
                   .image_digest = key.image_digest,
                   .grid_thw = grid_thw,
                   .model = std::move(model),
                   .dtype = DType::kF32},
          .rows = std::move(rows)};
}

Status check_shape(const std::array<std::int64_t, 3>& grid, std::int64_t rows, std::int64_t cols, std::int64_t merge,
                   std::int64_t width) {
  for (std::int64_t side : grid)
    if (side < 1 || side > kMaxGridSide)
      return fail(Code::kInvalidArgument, "grid_thw {}: each entry must lie in [1, {}]", grid_text(grid), kMaxGridSide);
  if (rows < 1 || cols < 1)
    return fail(Code::kInvalidArgument, "image_embeds [{}, {}]: expected at least one row and one column", rows, cols);
  if (width != 0 && cols != width)
    return fail(Code::kInvalidArgument, "image_embeds [{}, {}]: expected rows of width {}", rows, cols, width);
  const std::int64_t patches = grid[0] * grid[1] * grid[2];
  if (merge == 0) merge = std::llround(std::sqrt(static_cast<double>(patches) / static_cast<double>(rows)));
  // A merge above every side cannot divide them; below that its square stays within 64 bits.
  if (merge < 1 || merge > kMaxGridSide || grid[1] % merge != 0 || grid[2] % merge != 0 ||
      patches / (merge * merge) != rows)
    return fail(Code::kInvalidArgument,
                "image_embeds has {} rows, which grid_thw {} does not give (spatial_merge_size {})", rows,
                grid_text(grid), merge);
  return {};
}

Status check_rows(const FeatureMeta& meta, ConstMatrixView rows, std::int64_t merge, std::int64_t width) {
  RETURN_IF_ERROR(check_shape(meta.grid_thw, rows.rows, rows.cols, merge, width));
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    const float* begin = rows.row(r);
    const float* bad = std::find_if_not(begin, begin + rows.cols, is_finite);
    if (bad != begin + rows.cols)
      return fail(Code::kInvalidArgument, "image_embeds: row {}, column {} is not a finite number", r, bad - begin);
  }
  return {};
}

Status round_feature(Feature& feature, DType dtype) {
  if (feature.meta.dtype == dtype) return {};
  if (dtype != DType::kF16 && dtype != DType::kBF16 && dtype != DType::kF32)
    return fail(Code::kInvalidArgument, "a feature is F32, F16 or BF16, not {}", dtype_name(dtype));
  if (feature.meta.dtype != DType::kF32)
    return fail(Code::kInvalidArgument, "the feature is rounded to {} and cannot become {}",
                dtype_name(feature.meta.dtype), dtype_name(dtype));
  float* values = feature.rows.data();
  const std::int64_t count = feature.rows.size();
  for (std::int64_t i = 0; i < count; ++i)
    if (!is_finite(rounded(values[i], dtype)))
      return fail(Code::kInvalidArgument, "value {} does not fit {}", values[i], dtype_name(dtype));
  for (std::int64_t i = 0; i < count; ++i) values[i] = rounded(values[i], dtype);
  feature.meta.dtype = dtype;
  return {};
}

Status check_feature(const FeatureMeta& meta, const Digest& vision_digest, std::span<const Digest> also_accepted) {
  if (meta.vision_digest == vision_digest) return {};
  if (std::find(also_accepted.begin(), also_accepted.end(), meta.vision_digest) != also_accepted.end()) return {};
  return fail(Code::kFailedPrecondition,
              "feature {}: made by the vision encoder with vision_digest {}{}, but the language model belongs to "
              "vision_digest {}{}",
              meta.id.hex(), meta.vision_digest.hex(),
              meta.arithmetic.empty() ? std::string() : " (computed in " + meta.arithmetic + ")", vision_digest.hex(),
              also_accepted.empty() ? std::string()
                                    : fmt::format(" (and to none of the {} further accepted)", also_accepted.size()));
}

}  // namespace chiasm
