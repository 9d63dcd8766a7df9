#include "image/patchify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace chiasm {

namespace {

constexpr int kChannels = 3;

using Tables = std::array<std::array<float, 256>, kChannels>;

// The value of each sample. Roundings as in numpy: sample / 255 as a double product, to float; then minus mean, over
// std in float.
Tables normalised(const PatchifyOptions& options) {
  Tables tables;
  for (int c = 0; c < kChannels; ++c) {
    const auto mean = static_cast<float>(options.image_mean[c]), deviation = static_cast<float>(options.image_std[c]);
    for (int v = 0; v < 256; ++v) {
      const auto rescaled = static_cast<float>(v * (1.0 / 255.0));
      const float centred = rescaled - mean;
      tables[c][v] = centred / deviation;
    }
  }
  return tables;
}

}  // namespace

Result<PatchifyShape> patchify_shape(std::span<const Image* const> frames, const PatchifyOptions& options) {
  constexpr std::int64_t kMost = 4096;  // keeps every product below in 64 bits
  const std::int64_t patch = options.patch_size, merge = options.merge_size, temporal = options.temporal_patch_size;
  if (patch < 1 || merge < 1 || temporal < 1 || patch > kMost || merge > kMost || temporal > kMost) {
    return fail(Code::kInvalidArgument,
                "expected patch_size, merge_size and temporal_patch_size from 1 to {}, got {}, {} and {}", kMost, patch,
                merge, temporal);
  }
  for (int c = 0; c < kChannels; ++c) {
    if (!std::isfinite(options.image_mean[c]) || !(static_cast<float>(options.image_std[c]) > 0) ||
        !std::isfinite(options.image_std[c])) {
      return fail(Code::kInvalidArgument, "expected a finite image_mean and a positive image_std, got {} and {}",
                  options.image_mean[c], options.image_std[c]);
    }
  }
  if (frames.empty()) return fail(Code::kInvalidArgument, "expected at least one frame, got none");
  const ImageSize size = frames[0]->size();
  RETURN_IF_ERROR(pixel_count(size));
  for (std::size_t i = 1; i < frames.size(); ++i) {
    if (frames[i]->size() == size) continue;
    return fail(Code::kInvalidArgument, "expected frames of one size, {} x {}, got {} x {} for frame {}", size.width,
                size.height, frames[i]->width(), frames[i]->height(), i);
  }
  const std::int64_t factor = patch * merge;
  if (size.width % factor != 0 || size.height % factor != 0) {
    return fail(Code::kInvalidArgument, "expected sides that are multiples of {}, got {} x {}", factor, size.width,
                size.height);
  }
  PatchifyShape shape;
  shape.grid_t = (static_cast<std::int64_t>(frames.size()) + temporal - 1) / temporal;
  shape.grid_h = size.height / patch;
  shape.grid_w = size.width / patch;
  shape.rows = shape.grid_t * shape.grid_h * shape.grid_w;
  shape.cols = kChannels * temporal * patch * patch;
  return shape;
}

Status patchify(std::span<const Image* const> frames, const PatchifyOptions& options, std::span<float> out) {
  ASSIGN_OR_RETURN(const PatchifyShape shape, patchify_shape(frames, options));
  const std::uint64_t expected = static_cast<std::uint64_t>(shape.rows) * static_cast<std::uint64_t>(shape.cols);
  if (out.size() != expected) {
    return fail(Code::kInvalidArgument, "expected room for {} x {} floats, got {}", shape.rows, shape.cols, out.size());
  }
  const Tables tables = normalised(options);
  const std::int64_t patch = options.patch_size, merge = options.merge_size, temporal = options.temporal_patch_size;
  const std::int64_t area = patch * patch, last = static_cast<std::int64_t>(frames.size()) - 1;

  // One patch of one frame: `to` is its place in channel 0, channels are temporal * area apart.
  const auto write_patch = [&](const Image& frame, std::int64_t top, std::int64_t left, float* to) {
    for (std::int64_t y = 0; y < patch; ++y) {
      const std::uint8_t* from = frame.row(top + y) + 3 * left;
      for (std::int64_t x = 0; x < patch; ++x, from += 3, ++to) {
        for (int c = 0; c < kChannels; ++c) to[c * temporal * area] = tables[c][from[c]];
      }
    }
  };

  float* row = out.data();
  for (std::int64_t t = 0; t < shape.grid_t; ++t) {
    for (std::int64_t block_y = 0; block_y < shape.grid_h; block_y += merge) {
      for (std::int64_t block_x = 0; block_x < shape.grid_w; block_x += merge) {
        for (std::int64_t i = 0; i < merge * merge; ++i, row += shape.cols) {
          const std::int64_t top = (block_y + i / merge) * patch, left = (block_x + i % merge) * patch;
          for (std::int64_t k = 0; k < temporal; ++k) {
            const std::int64_t frame = std::min(t * temporal + k, last);
            if (k > 0 && frames[frame] == frames[std::min(t * temporal + k - 1, last)]) {
              for (int c = 0; c < kChannels; ++c) {  // a repeated frame
                float* to = row + (c * temporal + k) * area;
                std::memcpy(to, to - area, static_cast<std::size_t>(area) * sizeof(float));
              }
            } else {
              write_patch(*frames[frame], top, left, row + k * area);
            }
          }
        }
      }
    }
  }
  return {};
}

}  // namespace chiasm
