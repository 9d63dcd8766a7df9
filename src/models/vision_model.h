// From patches to features: the vision half of a family.
//
// Thread contract: immutable after load; encode may be called from several threads.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "kernels/ops.h"
#include "models/checkpoint.h"
#include "models/layout.h"

namespace chiasm {

class WeightCache;

class VisionModel {
 public:
  virtual ~VisionModel() = default;
  virtual const VisionConfig& config() const = 0;

  // pixel_values [sum of grids' patches, patch_width] of several pictures one after the other, to image_embeds
  // [sum of rows, hidden_size]. A picture's rows are bit-identical whatever stands beside it. Memory grows linearly
  // with patches.
  virtual Result<Matrix> encode(ConstMatrixView pixel_values, std::span<const Grid> grids) const = 0;

  virtual std::uint64_t weight_bytes() const = 0;

  // Called, when set, with the name and value of each stage ("patch_embed", "block.0", ...): for goldens.
  using Probe = std::function<void(std::string_view stage, ConstMatrixView value)>;
  virtual Result<Matrix> encode(ConstMatrixView pixel_values, std::span<const Grid> grids,
                                const Probe& probe) const = 0;
};

// Loads the vision weights of a checkpoint opened for vision (or whole); `ops` must outlive the model. The matrices are
// computed with in `precision`, else as they are stored; rounded ones may be kept in `cache`.
Result<std::unique_ptr<const VisionModel>> load_vision_model(const Checkpoint& checkpoint, const Ops& ops,
                                                             std::optional<Precision> precision = {},
                                                             const WeightCache* cache = nullptr);

}  // namespace chiasm
