// From resized pictures to the rows that a patch embedding multiplies: rescale, normalise, cut into patches.
//
// Leaves the size (models/.../layout) and scaling (resize.h) to others. Thread contract: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "image/image.h"

namespace chiasm {

struct PatchifyOptions {
  std::int64_t patch_size = 14;
  std::int64_t temporal_patch_size = 2;
  std::int64_t merge_size = 2;
  std::array<double, 3> image_mean{0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> image_std{0.26862954, 0.26130258, 0.27577711};
};

// Rows and columns of the matrix that patchify writes, and its grid in patches.
struct PatchifyShape {
  std::int64_t grid_t = 0, grid_h = 0, grid_w = 0;
  std::int64_t rows = 0;  // grid_t * grid_h * grid_w
  std::int64_t cols = 0;  // 3 * temporal_patch_size * patch_size^2
};

// Errors: no frames, frames of different sizes, sides that are not multiples of patch_size * merge_size, options that
// are not positive, an image_std of 0.
Result<PatchifyShape> patchify_shape(std::span<const Image* const> frames, const PatchifyOptions& options);

// Writes [rows, cols] floats to `out`, as transformers' Qwen2-VL image processor with the PIL backend does
// (image_processing_pil_qwen2_vl.py). Rows in the order (grid_t, grid_h / merge, grid_w / merge, merge, merge), columns
// (channel, temporal, patch, patch). The last frame is repeated until the count is a multiple of temporal_patch_size: a
// single picture is its frame twice.
Status patchify(std::span<const Image* const> frames, const PatchifyOptions& options, std::span<float> out);

}  // namespace chiasm
