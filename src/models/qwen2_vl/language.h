// The language half of Qwen2-VL behind LanguageModel. Source: transformers' modeling_qwen2_vl.py, Qwen2VLTextModel.
#pragma once

#include <memory>
#include <optional>

#include "models/language_model.h"

namespace chiasm {

Result<std::unique_ptr<const LanguageModel>> load_qwen2_vl_language(const Checkpoint& checkpoint, const Ops& ops,
                                                                    std::optional<Precision> precision = {},
                                                                    const WeightCache* cache = nullptr);

}  // namespace chiasm
