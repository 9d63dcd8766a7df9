// The integers of Qwen2-VL: resized sizes, grids, the order of patches, M-RoPE positions.
//
// Source of every rule: transformers' image_processing_qwen2_vl.py and modeling_qwen2_vl.py (4.45 to 4.57). Leaves
// pixels to image/ and arithmetic to kernels/. Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/layout.h"

namespace chiasm {

// Height and width as multiples of `factor` nearest to the picture's own, scaled so that their product lies within
// [min_pixels, max_pixels]. Errors (kInvalidArgument): a side below 1, an aspect ratio above 200.
Result<Size> smart_resize(Size picture, std::int64_t factor, std::int64_t min_pixels, std::int64_t max_pixels);

// Where a patch lies in its frame, in patches.
struct PatchPosition {
  std::int32_t row = 0, col = 0;
  bool operator==(const PatchPosition&) const = default;
};

// The patches of a grid in the order of pixel_values: frame by frame, merge blocks row-major, row-major inside a block.
// grid.h and grid.w are multiples of spatial_merge_size.
std::vector<PatchPosition> patch_positions(const Grid& grid, std::int64_t spatial_merge_size);

std::unique_ptr<const ModelLayout> make_qwen2_vl_layout(const ModelConfig& config);

}  // namespace chiasm
