#include "models/qwen2_vl/vision.h"
#include "models/registry/family.h"
#include "models/vision_model.h"

namespace chiasm {
namespace {

using Load = Result<std::unique_ptr<const VisionModel>> (*)(const Checkpoint&, const Ops&, std::optional<Precision>,
                                                            const WeightCache*);

constexpr Family<Load> kFamilies[] = {
    {"qwen2_vl", &load_qwen2_vl_vision},
};

}  // namespace

Result<std::unique_ptr<const VisionModel>> load_vision_model(const Checkpoint& checkpoint, const Ops& ops,
                                                             std::optional<Precision> precision,
                                                             const WeightCache* cache) {
  ASSIGN_OR_RETURN(const Load load, find_family<Load>(kFamilies, checkpoint.config()));
  return load(checkpoint, ops, precision, cache);
}

}  // namespace chiasm
