// Sees through vision servers: memory and disk first, then the fleet.
//
// Thread contract: any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "features/feature_source.h"
#include "fleet/vision_fleet.h"
#include "roles/eye.h"

namespace chiasm {

struct RemoteEyeOptions {
  std::filesystem::path model;                    // the language checkpoint: its image settings make the keys
  Digest vision_digest;                           // of the encoder whose features it takes
  std::optional<std::filesystem::path> features;  // the folder of the disk tier; none: memory only
  std::uint64_t memory_bytes = 256ULL << 20;
  std::uint64_t disk_bytes = 10ULL << 30;
  std::optional<std::int64_t> min_pixels, max_pixels;  // instead of the checkpoint's
  std::function<void(std::string_view)> on_warning;    // may be null
};

class RemoteEye : public Eye {
 public:
  static Result<std::unique_ptr<RemoteEye>> open(const RemoteEyeOptions& options, std::unique_ptr<VisionFleet> fleet);

  Result<Sight> look(const LookRequest& request) override;
  Result<Sight> find(const FeatureId& id, std::string_view tenant, Deadline deadline,
                     const CancelFlag* cancel) override;
  Status forget(const FeatureId& id, std::string_view tenant, Deadline deadline) override;
  const PreprocessorConfig& preprocessor() const override { return preprocessor_; }
  EyeStatus status() const override;
  void read_metrics(MetricReader& reader) const override;

 private:
  RemoteEye(const RemoteEyeOptions& options, std::unique_ptr<VisionFleet> fleet)
      : options_(options), fleet_(std::move(fleet)) {}

  const RemoteEyeOptions options_;
  PreprocessorConfig preprocessor_;
  std::unique_ptr<VisionFleet> fleet_;
  std::unique_ptr<TieredFeatureSource> source_;
};

}  // namespace chiasm
