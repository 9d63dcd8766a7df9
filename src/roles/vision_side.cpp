#include "roles/vision_side.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/json.h"
#include "base/stopwatch.h"
#include "kernels/devices.h"
#include "models/weight_cache.h"

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

// Without what a codec's library says: "GIF: corrupt: ..." ends at "corrupt".
Error for_clients(Error error) {
  const std::size_t verdict = error.message.find(": corrupt");
  if (verdict == std::string::npos) return error;
  const std::size_t library = error.message.find(": ", verdict + 1);
  if (library != std::string::npos) error.message.resize(library);
  return error;
}

}  // namespace

Result<std::unique_ptr<VisionSide>> VisionSide::open(const VisionSideOptions& options, ThreadPool& threads) {
  std::unique_ptr<VisionSide> out(new VisionSide(options, threads));
  out->name_ = model_name(options.model);
  ASSIGN_OR_RETURN(out->config_, load_model_config(options.model));
  ASSIGN_OR_RETURN(out->preprocessor_, load_preprocessor_config(options.model));
  ASSIGN_OR_RETURN(out->preprocessor_, with_bounds(out->preprocessor_, {options.min_pixels, options.max_pixels}));
  ASSIGN_OR_RETURN(out->layout_, make_layout(out->config_));
  ASSIGN_OR_RETURN(out->vision_digest_, vision_digest_as(options.model, options.precision));
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

VisionSideInfo VisionSide::info() const {
  return {.model = name_,
          .vision_digest = vision_digest_,
          .preprocess_digest = preprocess_digest_,
          .preprocessor = preprocessor_,
          .hidden_size = config_.vision.hidden_size,
          .limits = options_.limits,
          .max_picture_tokens = options_.service.max_picture_tokens};
}

Result<FeatureKey> VisionSide::key_of(PictureFiles files, std::string_view tenant, const PixelBounds& bounds) const {
  if (bounds == PixelBounds{}) return feature_key(tenant, vision_digest_, preprocess_digest_, files);
  ASSIGN_OR_RETURN(const PreprocessorConfig config, with_bounds(preprocessor_, bounds));
  return feature_key(tenant, vision_digest_, config.digest(), files);
}

Result<SeenPicture> VisionSide::look(PictureFiles files, const LookOptions& options) {
  auto seen = see(files, options);
  if (!seen) return tl::unexpected(for_clients(std::move(seen).error()));
  return seen;
}

Result<SeenPicture> VisionSide::look(PictureFiles files, Deadline deadline) {
  return see(files, {.bounds = {}, .deadline = deadline});
}

Result<SeenPicture> VisionSide::see(PictureFiles files, const LookOptions& options) {
  const Stopwatch watch;
  ASSIGN_OR_RETURN(const FeatureKey key, key_of(files, options.tenant, options.bounds));
  SeenPicture out;
  ASSIGN_OR_RETURN(
      const Fetched fetched,
      source_->get(key, [&] { return encode(key, files, options, out.times); }, options.deadline, options.cancel));
  out.feature = fetched.feature;
  out.source = fetched.source;
  out.joined = fetched.joined;
  out.fetch_ms = watch.ms();
  return out;
}

Result<Feature> VisionSide::encode(const FeatureKey& key, PictureFiles files, const LookOptions& options,
                                   EncodeTimes& times) {
  const auto loaded = eye(options.deadline);
  if (!loaded) {
    // Whatever is wrong with the checkpoint is not the picture's fault.
    const bool late = loaded.error().code == Code::kDeadlineExceeded;
    return tl::unexpected(Error{late ? Code::kDeadlineExceeded : Code::kInternal, loaded.error().message});
  }
  auto picture = (*loaded)->service->encode(files, options.bounds, options.deadline, options.cancel);
  if (!picture) {
    // Whatever is wrong with the picture's bytes is.
    const Code code = picture.error().code;
    const bool bad = code == Code::kDataLoss || code == Code::kUnimplemented;
    return tl::unexpected(Error{bad ? Code::kInvalidArgument : code, std::move(picture).error().message});
  }
  times = picture->times;
  Feature out = make_feature(key, {picture->grid.t, picture->grid.h, picture->grid.w}, name_, std::move(picture->rows));
  out.meta.arithmetic = (*loaded)->precision == Precision::kExact
                            ? std::string(dtype_name((*loaded)->ops->activations()))
                            : std::string(precision_name((*loaded)->precision));
  return out;
}

Result<SeenPicture> VisionSide::find(const FeatureId& id, std::string_view tenant) {
  const Stopwatch watch;
  const bool in_memory = source_->memory()->holds(id);
  SeenPicture out;
  out.feature = source_->find(id);
  // One answer for what is not there and what is another's: nobody learns what others have looked at.
  if (out.feature == nullptr || !belongs_to(out.feature->meta, tenant, preprocessor_.temporal_patch_size))
    return fail(Code::kNotFound, "no feature is kept under the id {}", id.hex());
  out.source = in_memory ? Source::kMemory : Source::kDisk;
  out.fetch_ms = watch.ms();
  return out;
}

Status VisionSide::forget(const FeatureId& id, std::string_view tenant) {
  RETURN_IF_ERROR(find(id, tenant));
  ASSIGN_OR_RETURN(const bool erased, source_->erase(id));
  if (!erased) return fail(Code::kNotFound, "no feature is kept under the id {}", id.hex());
  return {};
}

bool VisionSide::is_kept_in(std::string_view folder_name, const FeatureId& id) const {
  const auto& disk = source_->disk();
  if (disk == nullptr) return false;
  const auto name = disk->folder_name();
  std::error_code error;
  return name && *name == folder_name && std::filesystem::exists(disk->path_of(id), error);
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
  return source_->disk() == nullptr ? std::vector<FeatureMeta>{} : source_->disk()->kin_of(image_digest(files));
}

EncodeServiceStatus VisionSide::encode_status() const {
  const std::lock_guard lock(load_mutex_);
  return eye_ == nullptr ? EncodeServiceStatus{} : eye_->service->status();
}

std::uint64_t VisionSide::weight_bytes() const {
  const std::lock_guard lock(load_mutex_);
  return eye_ == nullptr ? 0 : eye_->model->weight_bytes();
}

Result<const Encoder*> VisionSide::encoder(Deadline deadline) {
  ASSIGN_OR_RETURN(const Eye* there, eye(deadline));
  return there->encoder.get();
}

Result<VisionSide::Eye*> VisionSide::eye(Deadline deadline) {
  std::unique_lock lock(load_mutex_);
  while (loading_) {
    if (deadline == kNoDeadline) {
      loaded_.wait(lock);
    } else if (loaded_.wait_until(lock, deadline) == std::cv_status::timeout && loading_) {
      return fail(Code::kDeadlineExceeded, "the deadline passed while the vision encoder was being loaded");
    }
  }
  if (eye_ != nullptr) return eye_.get();
  loading_ = true;
  lock.unlock();
  std::unique_ptr<Eye> fresh;
  Status status;
  try {
    auto loaded = load();
    if (loaded) fresh = *std::move(loaded);
    if (!loaded) status = tl::unexpected(std::move(loaded).error());
  } catch (const std::exception& e) {  // of memory, threads, on_load
    status = fail(Code::kResourceExhausted, "the vision encoder cannot be loaded: {}", e.what());
  }
  lock.lock();
  loading_ = false;
  loaded_.notify_all();
  if (!status) return tl::unexpected(std::move(status).error());
  eye_ = std::move(fresh);
  return eye_.get();
}

Result<std::unique_ptr<VisionSide::Eye>> VisionSide::load() {
  if (options_.on_load) options_.on_load(false);
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(options_.model, Role::kVision));
  auto out = std::make_unique<Eye>();
  ASSIGN_OR_RETURN(out->precision, checkpoint.precision(Role::kVision, options_.precision));
  ASSIGN_OR_RETURN(out->ops, make_ops(options_.device, threads_));
  std::optional<WeightCache> cache;
  if (options_.weights)
    cache.emplace(WeightCacheOptions{.dir = *options_.weights, .warn = options_.on_warning}, threads_);
  ASSIGN_OR_RETURN(out->model, load_vision_model(checkpoint, *out->ops, options_.precision, cache ? &*cache : nullptr));
  out->encoder =
      std::make_unique<const Encoder>(*out->model, *layout_, preprocessor_, threads_, options_.limits, &codec_stats_);
  out->service = std::make_unique<EncodeService>(*out->encoder, options_.service);
  if (options_.on_load) options_.on_load(true);
  return out;
}

}  // namespace chiasm
