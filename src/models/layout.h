// What a family says in integers, apart from pixels and weights: sizes, grids, row counts and positions.
//
// Thread contract: plain values; a ModelLayout is immutable.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "models/config.h"

namespace chiasm {

// grid_thw: frame groups, rows and columns of patches, before merging.
struct Grid {
  std::int64_t t = 0, h = 0, w = 0;
  std::int64_t patches() const { return t * h * w; }
  std::int64_t rows(std::int64_t spatial_merge_size) const {
    return patches() / (spatial_merge_size * spatial_merge_size);
  }
  bool operator==(const Grid&) const = default;
};

struct Size {
  std::int64_t height = 0, width = 0;
  bool operator==(const Size&) const = default;
};

// One piece of a prompt: ordinary tokens, or the feature rows of one picture or video.
struct Span {
  std::int64_t length = 0;  // tokens or rows
  bool vision = false;
  Grid grid;  // of a vision span
};

// position_ids [3][T], and what to add to a later token's index to get its position.
struct Positions {
  std::array<std::vector<std::int32_t>, 3> position_ids;  // time, height, width
  std::int64_t rope_delta = 0;                            // largest position + 1 - T
};

class ModelLayout {
 public:
  virtual ~ModelLayout() = default;

  // The size a picture is resized to. Errors: a side of 0, an aspect ratio above 200.
  virtual Result<Size> target_size(Size picture, const PreprocessorConfig& config) const = 0;
  // The grid of `frames` pictures of that size: 1 for a still picture.
  virtual Grid grid_of(Size target, std::int64_t frames, const PreprocessorConfig& config) const = 0;
  // Positions of a whole prompt.
  virtual Positions position_ids(std::span<const Span> spans) const = 0;
};

// The layout of config.model_type; kUnimplemented names the families there are.
Result<std::unique_ptr<const ModelLayout>> make_layout(const ModelConfig& config);

}  // namespace chiasm
