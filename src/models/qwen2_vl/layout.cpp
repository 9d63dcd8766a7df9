#include "models/qwen2_vl/layout.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace chiasm {
namespace {

constexpr std::int64_t kMaxSide = 1 << 30;  // products of two sides stay exact in 64 bits
constexpr std::int64_t kMaxAspectRatio = 200;

class Qwen2VlLayout final : public ModelLayout {
 public:
  explicit Qwen2VlLayout(std::int64_t spatial_merge_size) : spatial_merge_size_(spatial_merge_size) {}

  Result<Size> target_size(Size picture, const PreprocessorConfig& config) const override {
    return smart_resize(picture, config.patch_size * config.merge_size, config.min_pixels, config.max_pixels);
  }

  Grid grid_of(Size target, std::int64_t frames, const PreprocessorConfig& config) const override {
    // An odd last frame is doubled.
    return {.t = (frames + config.temporal_patch_size - 1) / config.temporal_patch_size,
            .h = target.height / config.patch_size,
            .w = target.width / config.patch_size};
  }

  Positions position_ids(std::span<const Span> spans) const override {
    Positions out;
    std::int64_t total = 0;
    for (const Span& span : spans) total += span.length;
    for (auto& ids : out.position_ids) ids.reserve(static_cast<std::size_t>(total));
    const auto push = [&](std::int64_t t, std::int64_t h, std::int64_t w) {
      out.position_ids[0].push_back(static_cast<std::int32_t>(t));
      out.position_ids[1].push_back(static_cast<std::int32_t>(h));
      out.position_ids[2].push_back(static_cast<std::int32_t>(w));
    };
    std::int64_t next = 0;  // one more than the largest position so far
    for (const Span& span : spans) {
      if (!span.vision) {
        for (std::int64_t i = 0; i < span.length; ++i) push(next + i, next + i, next + i);
        next += span.length;
      } else {
        const std::int64_t rows = span.grid.h / spatial_merge_size_, cols = span.grid.w / spatial_merge_size_;
        CHECK(span.length == span.grid.t * rows * cols);
        for (std::int64_t t = 0; t < span.grid.t; ++t) {
          for (std::int64_t h = 0; h < rows; ++h) {
            for (std::int64_t w = 0; w < cols; ++w) push(next + t, next + h, next + w);
          }
        }
        if (span.length > 0) next += std::max({span.grid.t, rows, cols});
      }
      CHECK(next <= std::numeric_limits<std::int32_t>::max());
    }
    out.rope_delta = next - total;
    return out;
  }

 private:
  std::int64_t spatial_merge_size_;
};

}  // namespace

Result<Size> smart_resize(Size picture, std::int64_t factor, std::int64_t min_pixels, std::int64_t max_pixels) {
  const auto [height, width] = picture;
  if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide) {
    return fail(Code::kInvalidArgument, "expected picture sides of 1 to {} pixels, got {} x {} (height x width)",
                kMaxSide, height, width);
  }
  if (std::max(height, width) > kMaxAspectRatio * std::min(height, width)) {
    return fail(Code::kInvalidArgument, "expected an aspect ratio of at most {}, got {:.1f} ({} x {}, height x width)",
                kMaxAspectRatio,
                static_cast<double>(std::max(height, width)) / static_cast<double>(std::min(height, width)), height,
                width);
  }
  // In the doubles of the original, step by step; nearbyint rounds halves to even as Python's round does.
  const auto h = static_cast<double>(height), w = static_cast<double>(width), f = static_cast<double>(factor);
  const auto times = [&](double count) { return static_cast<std::int64_t>(count) * factor; };
  const Size nearest{times(std::nearbyint(h / f)), times(std::nearbyint(w / f))};
  const std::int64_t pixels = nearest.height * nearest.width;
  if (pixels > max_pixels) {
    const double beta = std::sqrt(static_cast<double>(height * width) / static_cast<double>(max_pixels));
    return Size{std::max(factor, times(std::floor(h / beta / f))), std::max(factor, times(std::floor(w / beta / f)))};
  }
  if (pixels < min_pixels) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / static_cast<double>(height * width));
    return Size{times(std::ceil(h * beta / f)), times(std::ceil(w * beta / f))};
  }
  // Only where min_pixels is 0 can a side have been rounded down to nothing.
  return Size{std::max(factor, nearest.height), std::max(factor, nearest.width)};
}

std::vector<PatchPosition> patch_positions(const Grid& grid, std::int64_t spatial_merge_size) {
  const std::int64_t m = spatial_merge_size;
  CHECK(m > 0 && grid.h % m == 0 && grid.w % m == 0);
  std::vector<PatchPosition> out;
  out.reserve(static_cast<std::size_t>(grid.patches()));
  for (std::int64_t t = 0; t < grid.t; ++t) {
    for (std::int64_t block_row = 0; block_row < grid.h; block_row += m) {
      for (std::int64_t block_col = 0; block_col < grid.w; block_col += m) {
        for (std::int64_t row = block_row; row < block_row + m; ++row) {
          for (std::int64_t col = block_col; col < block_col + m; ++col) {
            out.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(col)});
          }
        }
      }
    }
  }
  return out;
}

std::unique_ptr<const ModelLayout> make_qwen2_vl_layout(const ModelConfig& config) {
  return std::make_unique<Qwen2VlLayout>(config.vision.spatial_merge_size);
}

}  // namespace chiasm
