// The feature file: a safetensors file with one tensor `image_embeds` [rows, width] (F32, F16 or BF16) and, in its
// `__metadata__`, all text:
//
//   format             "chiasm.feature/1"
//   feature_id, vision_digest, preprocess_digest, image_digest      64 hex digits each
//   grid_thw           "1,16,20"
//   model              informative
//   dtype              "F32", "F16" or "BF16": the tensor's
//   arithmetic         informative, may be absent: what the encoder computed in
//   xxh3               XXH3-64 of the tensor's bytes, 16 hex digits
//   xxh3_metadata      XXH3-64 of key NUL value NUL of every other entry, in byte order of the keys
//
// Further entries are allowed and covered by xxh3_metadata. Everything is checked on load, so damage in any byte is
// found. Where files lie and which stay is disk_tier.h. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "features/feature.h"

namespace chiasm {

inline constexpr std::string_view kFeatureFormat = "chiasm.feature/1";
inline constexpr std::string_view kFeatureTensor = "image_embeds";
inline constexpr std::uint64_t kMaxFeatureFile = 1ULL << 30;     // bytes, by default
inline constexpr std::uint64_t kMaxFeatureHeader = 64ULL << 10;  // bytes of JSON

// What is wrong with a file.
enum class FeatureFault : std::uint8_t {
  kAbsent,     // no such file, or it cannot be read
  kTruncated,  // shorter than it says
  kCorrupt,    // a feature file whose bytes changed, or whose fields contradict each other
  kForeign,    // not a feature file of this format
  kOversized,  // larger than the limit
  kMismatch,   // a sound feature file, but not the one asked for
};
inline constexpr std::size_t kFeatureFaults = 6;
std::string_view fault_name(FeatureFault fault);  // "truncated"

// An Error that says which fault; ASSIGN_OR_RETURN in a function returning Result keeps code and message.
struct FeatureFileError : Error {
  FeatureFault fault = FeatureFault::kCorrupt;
};
template <class T>
using FeatureFileResult = tl::expected<T, FeatureFileError>;

// What the reader knows of the feature it asks for; what is not set is not checked.
struct FeatureExpectations {
  std::optional<FeatureId> id;
  std::optional<Digest> vision_digest, preprocess_digest, image_digest;
  std::int64_t merge = 0;  // spatial_merge_size
  std::int64_t width = 0;  // of a row
  // The type rows are to be rounded to: a file of that type, or an F32 file, which is rounded on load. A file of less
  // precision is a mismatch.
  std::optional<DType> dtype;

  static FeatureExpectations of(const FeatureKey& key) {
    return {.id = key.id,
            .vision_digest = key.vision_digest,
            .preprocess_digest = key.preprocess_digest,
            .image_digest = key.image_digest};
  }
};

// The whole file as bytes, for a file or the wire. kInvalidArgument: rows of no finite value or not of the grid, a
// value that does not fit `dtype`, a model name that is not UTF-8.
Result<std::vector<std::byte>> serialize_feature(const Feature& feature, DType dtype);

// `source` names the bytes in errors.
FeatureFileResult<Feature> parse_feature(std::span<const std::byte> bytes, std::string_view source,
                                         const FeatureExpectations& expected = {},
                                         std::uint64_t limit = kMaxFeatureFile);

// Publishes the file atomically.
Status save_feature(const std::filesystem::path& path, const Feature& feature, DType dtype);

// Reads the file whole rather than mapping it: a mapping would let another process's truncation kill this one.
FeatureFileResult<Feature> load_feature(const std::filesystem::path& path, const FeatureExpectations& expected = {},
                                        std::uint64_t limit = kMaxFeatureFile);

// The metadata alone, its checksum verified, the rows not read: for those who look through many files.
FeatureFileResult<FeatureMeta> load_feature_meta(const std::filesystem::path& path);

// Whether the file at `path` claims to be a feature file, from its first bytes: for `chiasm inspect PATH`, which takes
// checkpoints too. False for anything else, absent files included.
bool looks_like_feature_file(const std::filesystem::path& path);

// The two checksums as the file spells them, for writers in other tools and for tests that tamper.
std::string payload_checksum(std::span<const std::byte> payload);
std::string metadata_checksum(const std::map<std::string, std::string, std::less<>>& metadata);

}  // namespace chiasm
