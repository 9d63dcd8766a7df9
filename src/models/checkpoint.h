// A checkpoint folder as published on the hub: its files mapped, its tensors under canonical names.
//
// Canonical names are the hub's of Qwen2-VL: "visual.*", "model.*", "lm_head.weight"; files that say "model.visual.*"
// or "model.language_model.*" are read as well. A role maps and checks its own tensors only. Missing, unexpected and
// misshapen tensors are all listed by name in one error, layers folded ("model.layers.{0-27}.mlp.up_proj.weight").
// Thread contract: immutable after open.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "models/config.h"
#include "tensor/precision.h"
#include "tensor/safetensors.h"

namespace chiasm {

enum class Role : std::uint8_t { kVision, kLanguage, kWhole };

struct ExpectedTensor {
  std::string name;
  Shape shape;
};

// Every tensor of a part as `config` implies it, canonical names, in the order of computation.
std::vector<ExpectedTensor> expected_vision_tensors(const VisionConfig& config);
std::vector<ExpectedTensor> expected_language_tensors(const TextConfig& config);  // lm_head.weight only if not tied

struct WeightFile;

class Checkpoint {
 public:
  // A vision-only or language-only folder (as `chiasm split` writes them) opens for that role; for another role the
  // error says which part the folder lacks.
  static Result<Checkpoint> open(const std::filesystem::path& dir, Role role);

  const std::filesystem::path& dir() const { return dir_; }
  // As config.json says, but for text.tie_word_embeddings, which is false where it says true and an lm_head.weight is
  // there that differs from the embedding: that one counts, as in transformers 5.
  const ModelConfig& config() const { return config_; }
  Role role() const { return role_; }

  // By canonical name; its owner is the mapped file. Absent: an error naming folder and tensor.
  Result<TensorView> tensor(std::string_view name) const;
  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  std::vector<std::string> names() const;  // canonical, sorted

  // How a matrix is stored: kExact, or as integers with scales beside it, as `chiasm quantize` writes them.
  Precision precision_of(std::string_view name) const;
  // Such a matrix. Its scales are the tensor "<name>_scales".
  Result<QuantisedTensor> quantised(std::string_view name) const;
  // How the matrices of a side are stored: its layers', where the embedding differs.
  Precision precision(Role side) const;
  // What they are to be computed with where `asked` (none: as they are stored). An error where they are stored as other
  // integers.
  Result<Precision> precision(Role side, std::optional<Precision> asked) const;

  // The tensor's pages are read now, not when they are touched first.
  void bring(std::string_view name) const;
  // The tensor's pages may leave this process's memory: its bytes were copied elsewhere.
  void release(std::string_view name) const;
  void release(std::string_view name, std::span<const std::byte> part) const;  // a part of tensor(name).bytes

 private:
  struct Place {
    std::shared_ptr<const SafetensorsFile> file;
    std::string stored_name;
    Precision precision = Precision::kExact;
    std::int64_t depth = 0;  // inputs of a quantised matrix
  };
  Status map_tensors(const std::vector<WeightFile>& files);

  std::filesystem::path dir_;
  Role role_ = Role::kWhole;
  ModelConfig config_;
  std::map<std::string, Place, std::less<>> tensors_;
};

// H over the sorted (name, dtype, shape, H of the bytes) of all vision tensors, and the vision config. Needs a
// checkpoint opened for vision. The same for a split, resharded or whole checkpoint. Reads every vision tensor, and
// releases its pages again. kCancelled once `stop` (may be null) is set.
Result<Digest> compute_vision_digest(const Checkpoint& checkpoint, const std::atomic<bool>* stop = nullptr);

// The vision digest a folder carries: a language-only folder has it in vision_digest.json (written by split), any other
// computes it and remembers it in a cache file keyed by the files' names, sizes and times, so that asking again is
// free. Both files carry a checksum: a damaged cache file is computed anew, a damaged vision_digest.json is an error.
// The cache lies in $XDG_CACHE_HOME/chiasm/digests, or ~/.cache/chiasm/digests; a cache that cannot be written or read
// costs time only.
Result<Digest> vision_digest_of(const std::filesystem::path& dir);
// The same with a cache folder of the caller's choice; an empty path for none.
Result<Digest> vision_digest_of(const std::filesystem::path& dir, const std::filesystem::path& cache);

inline constexpr std::uint64_t kShardBytes = 2ULL << 30;  // of tensors in one file that split writes

// The same, of the encoder that looks with matrices in integers: other weights, another digest. kExact: the digest
// itself.
Digest vision_digest_in(const Digest& exact, Precision precision);
// Of a folder whose vision matrices are computed with in `asked` (none: as they are stored). Folders without vision
// tensors carry the digest of the exact ones, or what they were made from.
Result<Digest> vision_digest_as(const std::filesystem::path& dir, std::optional<Precision> asked);

// Writes a folder like `dir` whose matrices are integers: loadable as it is, and at once. Norms and biases stay as they
// are, and so does the dtype of what `vision` or `language` says is kExact. Half a checkpoint stays that half. `out`,
// `progress` and `stop` as for split_checkpoint. Errors: what is rounded already, a precision that is no integer's.
Status quantise_checkpoint(const std::filesystem::path& dir, const std::filesystem::path& out, Precision vision,
                           Precision language, const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                           const std::atomic<bool>* stop = nullptr);

// What matrices become where a side is computed in `precision`: the encoder's have eight bits at least, and so has the
// embedding, whose rows are read as they are and whose product picks the token.
constexpr Precision vision_precision(Precision precision) {
  return precision == Precision::kInt4 ? Precision::kInt8 : precision;
}
constexpr Precision embedding_precision(Precision precision) {
  return precision == Precision::kInt4 ? Precision::kInt8 : precision;
}

// The projection behind the MLP's gate reads products of two values, some a hundred times as large as the rest: with
// them in groups of 128 the demo model's logits were up to 10 % off.
constexpr Precision down_precision(Precision precision) {
  return precision == Precision::kInt8 ? Precision::kInt8Fine : precision;
}

// Writes out/vision and out/language: each loadable for its role, both carrying the vision digest. `out` must not exist
// or be empty. Where it does not exist it appears complete or not at all; into a folder that is there (a mount point, a
// link to a folder) nothing is written beside it, and the halves are moved once both are complete. Tensors keep dtype
// and bytes and get canonical names; what the model does not use (rotary buffers, an lm_head.weight that repeats the
// embedding) is left out. Files of more than `shard_bytes` of tensors are cut into shards with an index.
// `progress(done_bytes, total_bytes)` may be null. Once `stop` (may be null) is set, everything written is removed and
// the answer is kCancelled, "stopped".
Status split_checkpoint(const std::filesystem::path& dir, const std::filesystem::path& out,
                        const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                        std::uint64_t shard_bytes = kShardBytes, const std::atomic<bool>* stop = nullptr);

}  // namespace chiasm
