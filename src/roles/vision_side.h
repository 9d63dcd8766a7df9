// The vision side of a checkpoint: pictures in, features out, the encoder loaded only when a picture is new.
//
// Composes the encoder and its queue with the feature tiers. Thread contract: every method may be called from any
// thread; one picture is encoded once however many ask. No call may be running when the side is destroyed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "encoder/encode_service.h"
#include "encoder/encoder.h"
#include "features/feature_source.h"
#include "kernels/ops.h"
#include "models/checkpoint.h"

namespace chiasm {

struct VisionSideOptions {
  std::filesystem::path model;
  std::string device = "cpu";                     // devices.h; programs say "auto"
  std::optional<Precision> precision;             // of the matrices; none: as they are stored
  std::optional<std::filesystem::path> features;  // the folder of the disk tier; none: memory only
  std::optional<std::filesystem::path> weights;   // the folder that keeps rounded weights; none: they are not kept
  std::uint64_t memory_bytes = 256ULL << 20;
  std::uint64_t disk_bytes = 10ULL << 30;
  std::optional<std::int64_t> min_pixels, max_pixels;  // instead of preprocessor_config.json's
  DecodeLimits limits;
  EncodeServiceOptions service;
  std::function<void(std::string_view)> on_warning;  // may be null
  // Called with false before the vision weights are read, with true once they are; may be null.
  std::function<void(bool loaded)> on_load;
};

// Of one look, for servers.
struct LookOptions {
  PixelBounds bounds;
  std::string_view tenant = {};  // separates the features of those who share a store
  Deadline deadline = kNoDeadline;
  const CancelFlag* cancel = nullptr;
};

// A picture or video as the language model will see it.
struct SeenPicture {
  std::shared_ptr<const Feature> feature;
  Source source = Source::kEncoded;
  bool joined = false;  // another request's work: it waited for that
  EncodeTimes times;    // zeros unless this call encoded it
  double fetch_ms = 0;  // from the raw bytes to the feature, whatever it took
};

// What a vision side is, for those who ask it from elsewhere.
struct VisionSideInfo {
  std::string model;  // the folder's name
  Digest vision_digest, preprocess_digest;
  PreprocessorConfig preprocessor;
  std::int64_t hidden_size = 0;  // width of a feature row
  DecodeLimits limits;
  std::int64_t max_picture_tokens = 0;
};

class VisionSide {
 public:
  // Reads the configs and the vision digest, no weights: known pictures are answered without any.
  static Result<std::unique_ptr<VisionSide>> open(const VisionSideOptions& options, ThreadPool& threads);

  const ModelConfig& config() const { return config_; }
  const PreprocessorConfig& preprocessor() const { return preprocessor_; }
  const Digest& vision_digest() const { return vision_digest_; }
  const Digest& preprocess_digest() const { return preprocess_digest_; }
  VisionSideInfo info() const;

  // The key is made from the raw bytes; only a miss opens a decoder. Errors in words for clients: kInvalidArgument
  // where the picture, its size or the bounds are at fault; kResourceExhausted at once when the encoder's queue is
  // full; kDeadlineExceeded, kCancelled; kInternal when the weights cannot be loaded.
  Result<SeenPicture> look(PictureFiles files, const LookOptions& options);
  // The same for a command line: no tenant, no bounds, and what codecs say of a damaged file.
  Result<SeenPicture> look(PictureFiles files, Deadline deadline = kNoDeadline);

  // kInvalidArgument: bounds that with_bounds refuses.
  Result<FeatureKey> key_of(PictureFiles files, std::string_view tenant = {}, const PixelBounds& bounds = {}) const;

  // What is kept under an id. kNotFound: nothing, or nothing of this tenant. It may be of other vision weights, where
  // several checkpoints share a folder: its metadata say.
  Result<SeenPicture> find(const FeatureId& id, std::string_view tenant);
  // Removes it from memory and disk. kNotFound as in find(); kInternal: the file cannot be removed.
  Status forget(const FeatureId& id, std::string_view tenant);

  // Whether the feature's file is in the folder of this name (DiskTier::folder_name).
  bool is_kept_in(std::string_view folder_name, const FeatureId& id) const;

  // From a feature file that somebody else made, wherever it lies. kFailedPrecondition, naming both digests, where it
  // is of other vision weights.
  Result<SeenPicture> recall(const std::filesystem::path& file) const;

  // What the disk tier keeps of these very files under other names: see DiskTier::kin_of.
  std::vector<FeatureMeta> kin_of(PictureFiles files) const;

  const CodecStats& codec_stats() const { return codec_stats_; }
  const TieredFeatureSource& source() const { return *source_; }
  EncodeServiceStatus encode_status() const;  // zeros before the weights are loaded

  // The encoder, its weights loaded now if they were not. One thread does it when several ask, the others wait until
  // `deadline`; after an error the next call tries again.
  Result<const Encoder*> encoder(Deadline deadline = kNoDeadline);
  std::uint64_t weight_bytes() const;  // 0 before they are loaded

 private:
  // What comes with the weights, in the order in which it is built.
  struct Eye {
    std::unique_ptr<Ops> ops;
    Precision precision = Precision::kExact;  // of the matrices
    std::unique_ptr<const VisionModel> model;
    std::unique_ptr<const Encoder> encoder;
    std::unique_ptr<EncodeService> service;
  };

  VisionSide(const VisionSideOptions& options, ThreadPool& threads) : options_(options), threads_(threads) {}

  Result<SeenPicture> see(PictureFiles files, const LookOptions& options);
  Result<Feature> encode(const FeatureKey& key, PictureFiles files, const LookOptions& options, EncodeTimes& times);
  Result<Eye*> eye(Deadline deadline);
  Result<std::unique_ptr<Eye>> load();

  const VisionSideOptions options_;
  ThreadPool& threads_;
  std::string name_;
  ModelConfig config_;
  PreprocessorConfig preprocessor_;
  Digest vision_digest_, preprocess_digest_;
  std::unique_ptr<const ModelLayout> layout_;
  std::unique_ptr<TieredFeatureSource> source_;
  CodecStats codec_stats_;

  mutable std::mutex load_mutex_;  // what follows
  std::condition_variable loaded_;
  bool loading_ = false;
  std::unique_ptr<Eye> eye_;  // never replaced once it is there
};

}  // namespace chiasm
