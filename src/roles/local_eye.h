// Sees with the vision side of its own process.
//
// Thread contract: any thread; the side must outlive it.
#pragma once

#include <string_view>

#include "roles/eye.h"
#include "roles/vision_side.h"

namespace chiasm {

class LocalEye : public Eye {
 public:
  explicit LocalEye(VisionSide& side) : side_(side) {}

  Result<Sight> look(const LookRequest& request) override;
  Result<Sight> find(const FeatureId& id, std::string_view tenant, Deadline deadline,
                     const CancelFlag* cancel) override;
  Status forget(const FeatureId& id, std::string_view tenant, Deadline deadline) override;
  const PreprocessorConfig& preprocessor() const override { return side_.preprocessor(); }
  EyeStatus status() const override;
  void read_metrics(MetricReader& reader) const override;

 private:
  VisionSide& side_;
};

}  // namespace chiasm
