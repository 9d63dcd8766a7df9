// The vision half of Qwen2-VL behind VisionModel. Source: transformers' modeling_qwen2_vl.py,
// Qwen2VisionTransformerPretrainedModel.
#pragma once

#include <memory>
#include <optional>

#include "models/vision_model.h"

namespace chiasm {

Result<std::unique_ptr<const VisionModel>> load_qwen2_vl_vision(const Checkpoint& checkpoint, const Ops& ops,
                                                                std::optional<Precision> precision = {},
                                                                const WeightCache* cache = nullptr);

}  // namespace chiasm
