#include "roles/vision_side.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/stopwatch.h"

namespace chiasm {
namespace {

// The folder's own name, informative in feature files; "models/x/" has one too. File names are any bytes, metadata is
// UTF-8.
std::string model_name(const std::filesystem::path& dir) {
  const std::filesystem::path clean = std::filesystem::absolute(dir).lexically_normal();
  std::string out = (clean.has_filename() ? clean : clean.parent_path()).filename().string();
  if (!is_utf8(out)) std::replace_if(out.begin(), out.end(), [](unsigned char c) { return c >= 0x80; }, '?');
  return out;
}

}  // namespace

Result<std::unique_ptr<VisionSide>> VisionSide::open(const VisionSideOptions& options, ThreadPool& threads) {
  std::unique_ptr<VisionSide> out(new VisionSide(options, threads));
  ASSIGN_OR_RETURN(out->config_, load_model_config(options.model));
  ASSIGN_OR_RETURN(out->preprocessor_, load_preprocessor_config(options.model));
  out->preprocessor_.min_pixels = options.min_pixels.value_or(out->preprocessor_.min_pixels);
  out->preprocessor_.max_pixels = options.max_pixels.value_or(out->preprocessor_.max_pixels);
  if (out->preprocessor_.min_pixels < 1 || out->preprocessor_.min_pixels > out->preprocessor_.max_pixels)
    return fail(Code::kInvalidArgument, "expected 1 <= min_pixels <= max_pixels, got {}{} and {}{}",
                out->preprocessor_.min_pixels, options.min_pixels ? "" : " (the model's)",
                out->preprocessor_.max_pixels, options.max_pixels ? "" : " (the model's)");
  ASSIGN_OR_RETURN(out->layout_, make_layout(out->config_));
  ASSIGN_OR_RETURN(out->vision_digest_, vision_digest_of(options.model));
  out->preprocess_digest_ = out->preprocessor_.digest();
  std::shared_ptr<DiskTier> disk;
  if (options.features) {
    DiskTierOptions tier;
    tier.dir = *options.features;
    tier.budget = options.disk_bytes;
    tier.warn = options.on_warning;
    disk = std::make_shared<DiskTier>(tier);
  }
  out->source_ = std::make_unique<TieredFeatureSource>(
      std::make_shared<MemoryTier>(options.memory_bytes), std::move(disk),
      FeatureSourceOptions{out->preprocessor_.merge_size, out->config_.vision.hidden_size});
  return out;
}

FeatureKey VisionSide::key_of(PictureFiles files) const {
  return feature_key(options_.tenant, vision_digest_, preprocess_digest_, files);
}

Result<SeenPicture> VisionSide::look(PictureFiles files, Deadline deadline) {
  const Stopwatch watch;
  const FeatureKey key = key_of(files);
  SeenPicture out;
  const auto encode = [&]() -> Result<Feature> {
    ASSIGN_OR_RETURN(const Encoder* eye, encoder());
    ASSIGN_OR_RETURN(EncodedPicture picture, eye->encode(files));
    out.times = picture.times;
    return make_feature(key, {picture.grid.t, picture.grid.h, picture.grid.w}, model_name(options_.model),
                        std::move(picture.rows));
  };
  ASSIGN_OR_RETURN(const Fetched fetched, source_->get(key, encode, deadline));
  out.feature = fetched.feature;
  out.source = fetched.source;
  out.fetch_ms = watch.ms();
  return out;
}

Result<SeenPicture> VisionSide::recall(const std::filesystem::path& file) const {
  const Stopwatch watch;
  auto feature = load_feature(file, {.merge = preprocessor_.merge_size, .width = config_.vision.hidden_size});
  if (!feature) return tl::unexpected<Error>(feature.error());
  if (auto ok = check_feature(feature->meta, vision_digest_, {}); !ok) return fail_in(file.string(), ok.error());
  SeenPicture out;
  out.feature = std::make_shared<const Feature>(std::move(*feature));
  out.source = Source::kDisk;
  out.fetch_ms = watch.ms();
  return out;
}

std::vector<FeatureMeta> VisionSide::kin_of(PictureFiles files) const {
  return source_->disk() == nullptr ? std::vector<FeatureMeta>{} : source_->disk()->kin_of(key_of(files).image_digest);
}

Result<const Encoder*> VisionSide::encoder() {
  const std::lock_guard lock(load_mutex_);
  if (encoder_ == nullptr) {
    if (options_.on_load) options_.on_load(false);
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(options_.model, Role::kVision));
    ops_ = make_cpu_ops(threads_);
    ASSIGN_OR_RETURN(model_, load_vision_model(checkpoint, *ops_));
    encoder_ =
        std::make_unique<const Encoder>(*model_, *layout_, preprocessor_, threads_, options_.limits, &codec_stats_);
    if (options_.on_load) options_.on_load(true);
  }
  return encoder_.get();
}

}  // namespace chiasm
