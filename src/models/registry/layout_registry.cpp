#include "models/layout.h"
#include "models/qwen2_vl/layout.h"
#include "models/registry/family.h"

namespace chiasm {
namespace {

using Make = std::unique_ptr<const ModelLayout> (*)(const ModelConfig&);

constexpr Family<Make> kFamilies[] = {
    {"qwen2_vl", &make_qwen2_vl_layout},
};

}  // namespace

Result<std::unique_ptr<const ModelLayout>> make_layout(const ModelConfig& config) {
  ASSIGN_OR_RETURN(const Make make, find_family<Make>(kFamilies, config));
  return make(config);
}

}  // namespace chiasm
