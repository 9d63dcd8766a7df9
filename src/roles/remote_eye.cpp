#include "roles/remote_eye.h"

#include <utility>

#include "base/stopwatch.h"
#include "features/feature_file.h"
#include "roles/tier_metrics.h"

namespace chiasm {

Result<std::unique_ptr<RemoteEye>> RemoteEye::open(const RemoteEyeOptions& options,
                                                   std::unique_ptr<VisionFleet> fleet) {
  std::unique_ptr<RemoteEye> out(new RemoteEye(options, std::move(fleet)));
  ASSIGN_OR_RETURN(const ModelConfig config, load_model_config(options.model));
  ASSIGN_OR_RETURN(out->preprocessor_, load_preprocessor_config(options.model));
  out->preprocessor_.min_pixels = options.min_pixels.value_or(out->preprocessor_.min_pixels);
  out->preprocessor_.max_pixels = options.max_pixels.value_or(out->preprocessor_.max_pixels);
  std::shared_ptr<DiskTier> disk;
  if (options.features) {
    DiskTierOptions tier;
    tier.dir = *options.features;
    tier.budget = options.disk_bytes;
    tier.warn = options.on_warning;
    disk = std::make_shared<DiskTier>(tier);
    if (const Status writable = disk->check_writable(); !writable && options.on_warning)
      options.on_warning(writable.error().message);
  }
  out->source_ = std::make_unique<TieredFeatureSource>(
      std::make_shared<MemoryTier>(options.memory_bytes), std::move(disk),
      FeatureSourceOptions{out->preprocessor_.merge_size, config.vision.hidden_size});
  if (const auto& folder = out->source_->disk()) {
    if (auto name = folder->folder_name()) {
      const FeatureSourceOptions sound{out->preprocessor_.merge_size, config.vision.hidden_size};
      out->fleet_->share_folder(std::move(*name), [folder, sound](const FeatureKey& key) -> Result<Feature> {
        FeatureExpectations expected = FeatureExpectations::of(key);
        expected.merge = sound.merge;
        expected.width = sound.width;
        auto feature = load_feature(folder->path_of(key.id), expected);
        if (!feature) return tl::unexpected<Error>(feature.error());
        return std::move(*feature);
      });
    }
  }
  RETURN_IF_ERROR(out->fleet_->start());
  return out;
}

Result<Sight> RemoteEye::look(const LookRequest& request) {
  const Stopwatch watch;
  // The key is made here, of this checkpoint's settings, so that known pictures need no vision server at all. What it
  // was made with is said with every call: a server's own defaults do not matter.
  PreprocessorConfig preprocessor = preprocessor_;
  preprocessor.min_pixels = request.min_pixels.value_or(preprocessor.min_pixels);
  preprocessor.max_pixels = request.max_pixels.value_or(preprocessor.max_pixels);
  if (preprocessor.min_pixels < 1 || preprocessor.min_pixels > preprocessor.max_pixels)
    return fail(Code::kInvalidArgument, "expected 1 <= min_pixels <= max_pixels, got {} and {}",
                preprocessor.min_pixels, preprocessor.max_pixels);
  const FeatureKey key = feature_key(request.tenant, options_.vision_digest, preprocessor.digest(), request.files);
  const auto encode = [&]() -> Result<Feature> {
    ASSIGN_OR_RETURN(RemoteFeature remote,
                     fleet_->encode(key, request.files, preprocessor.min_pixels, preprocessor.max_pixels,
                                    request.tenant, request.deadline, request.cancel));
    return std::move(remote.feature);
  };
  ASSIGN_OR_RETURN(Fetched fetched, source_->get(key, encode, request.deadline, request.cancel));
  const bool remote = fetched.source == Source::kEncoded;
  const std::string source = fetched.joined ? "joined"
                             : remote       ? "vision_server"
                                            : std::string(source_name(fetched.source));
  return Sight{std::move(fetched.feature), source, watch.ms()};
}

Result<Sight> RemoteEye::find(const FeatureId& id, std::string_view tenant, Deadline deadline,
                              const CancelFlag* cancel) {
  const Stopwatch watch;
  if (auto found = source_->find(id)) {
    if (!belongs_to(found->meta, tenant, preprocessor_.temporal_patch_size))
      return fail(Code::kNotFound, "nothing is kept under the id {}", id.hex());
    return Sight{std::move(found), "memory", watch.ms()};
  }
  ASSIGN_OR_RETURN(RemoteFeature remote, fleet_->get(id, tenant, deadline, cancel));
  auto feature = std::make_shared<const Feature>(std::move(remote.feature));
  source_->memory()->put(feature);
  return Sight{std::move(feature), "vision_server", watch.ms()};
}

Status RemoteEye::forget(const FeatureId& id, std::string_view tenant, Deadline deadline) {
  bool here = false;
  if (const auto found = source_->find(id)) {
    if (!belongs_to(found->meta, tenant, preprocessor_.temporal_patch_size))
      return fail(Code::kNotFound, "nothing is kept under the id {}", id.hex());
    ASSIGN_OR_RETURN(here, source_->erase(id));
  }
  Status there = fleet_->remove(id, tenant, deadline, nullptr);
  if (!there && there.error().code == Code::kNotFound && here) return {};
  return there;
}

EyeStatus RemoteEye::status() const {
  EyeStatus out = tier_status(*source_);
  for (const ServerState& server : fleet_->servers())
    out.servers.push_back({server.origin, std::string(condition_name(server.condition))});
  return out;
}

void RemoteEye::read_metrics(MetricReader& reader) const {
  read_tier_metrics(*source_, reader);
  for (const ServerState& server : fleet_->servers()) {
    const MetricLabels labels{{"server", server.origin}};
    reader.gauge("chiasm_vision_server_healthy", "1 when the vision server is asked",
                 server.condition == ServerCondition::kHealthy ? 1 : 0, labels);
    reader.counter("chiasm_vision_server_requests_total", "Requests about features sent to the vision server",
                   static_cast<double>(server.requests), labels);
    reader.counter("chiasm_vision_server_failures_total", "Of these, how many failed",
                   static_cast<double>(server.failures), labels);
  }
}

}  // namespace chiasm
