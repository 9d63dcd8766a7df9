// The vision side of a checkpoint: pictures in, features out, the encoder loaded only when a picture is new.
//
// Composes the encoder with the feature tiers. Thread contract: look() may be called from any thread; one picture is
// encoded once however many ask.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "encoder/encoder.h"
#include "features/feature_source.h"
#include "kernels/ops.h"
#include "models/checkpoint.h"

namespace chiasm {

struct VisionSideOptions {
  std::filesystem::path model;
  std::optional<std::filesystem::path> features;  // the folder of the disk tier; none: memory only
  std::uint64_t memory_bytes = 256ULL << 20;
  std::uint64_t disk_bytes = 10ULL << 30;
  std::optional<std::int64_t> min_pixels, max_pixels;  // instead of preprocessor_config.json's
  DecodeLimits limits;
  std::string tenant;                                // separates the features of those who share a store
  std::function<void(std::string_view)> on_warning;  // may be null
  // Called with false before the vision weights are read, with true once they are; may be null.
  std::function<void(bool loaded)> on_load;
};

// A picture or video as the language model will see it.
struct SeenPicture {
  std::shared_ptr<const Feature> feature;
  Source source = Source::kEncoded;
  EncodeTimes times;    // zeros unless this call encoded it
  double fetch_ms = 0;  // from the raw bytes to the feature, whatever it took
};

class VisionSide {
 public:
  // Reads the configs and the vision digest, no weights: known pictures are answered without any.
  static Result<std::unique_ptr<VisionSide>> open(const VisionSideOptions& options, ThreadPool& threads);

  const ModelConfig& config() const { return config_; }
  const PreprocessorConfig& preprocessor() const { return preprocessor_; }
  const Digest& vision_digest() const { return vision_digest_; }
  const Digest& preprocess_digest() const { return preprocess_digest_; }

  // The key is made from the raw bytes; only a miss opens a decoder.
  Result<SeenPicture> look(PictureFiles files, Deadline deadline);
  FeatureKey key_of(PictureFiles files) const;

  // From a feature file that somebody else made, wherever it lies. kFailedPrecondition, naming both digests, where it
  // is of other vision weights.
  Result<SeenPicture> recall(const std::filesystem::path& file) const;

  // What the disk tier keeps of these very files under other names: see DiskTier::kin_of.
  std::vector<FeatureMeta> kin_of(PictureFiles files) const;

  const CodecStats& codec_stats() const { return codec_stats_; }
  const TieredFeatureSource& source() const { return *source_; }

  // The encoder, its weights loaded now if they were not.
  Result<const Encoder*> encoder();
  std::uint64_t weight_bytes() const { return model_ == nullptr ? 0 : model_->weight_bytes(); }

 private:
  VisionSide(const VisionSideOptions& options, ThreadPool& threads) : options_(options), threads_(threads) {}

  const VisionSideOptions options_;
  ThreadPool& threads_;
  ModelConfig config_;
  PreprocessorConfig preprocessor_;
  Digest vision_digest_, preprocess_digest_;
  std::unique_ptr<const ModelLayout> layout_;
  std::unique_ptr<TieredFeatureSource> source_;
  CodecStats codec_stats_;

  std::mutex load_mutex_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<const VisionModel> model_;
  std::unique_ptr<const Encoder> encoder_;
};

}  // namespace chiasm
