// A feature: the merged vision rows of one picture or video, named before any pixel is decoded.
//
// The key is made from raw file bytes and digests alone, so this folder links no codec and no model. What a feature
// file looks like is feature_file.h; where features are kept is memory_tier.h, disk_tier.h and feature_source.h.
// Thread contract: values; a Feature is shared as shared_ptr<const Feature> and never changed afterwards.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace chiasm {

// The name of a feature. Its own type, so that no other digest is taken for one.
struct FeatureId {
  Digest digest;

  auto operator<=>(const FeatureId&) const = default;
  std::string hex() const { return digest.hex(); }
  static Result<FeatureId> from_hex(std::string_view hex);
};

// The id and what it was made from; a file found under the id is checked against all of it.
struct FeatureKey {
  FeatureId id;
  Digest vision_digest;
  Digest preprocess_digest;
  Digest image_digest;

  bool operator==(const FeatureKey&) const = default;
};

// Of one file: digest_of(bytes), which is the first 64 digits that `b2sum FILE` prints. Of a list of frames: H over
// their number and their digests in order, so that a list of one is the picture itself.
Digest image_digest(std::span<const std::span<const std::byte>> files);

// feature_id = H(tenant, vision digest, preprocess digest, number of files, image digest), the fields typed and framed.
// The raw bytes enter through their digest, so one pass over them gives both names. `preprocess` is
// PreprocessorConfig::digest() of the configuration in force, overrides of min_pixels and max_pixels included. `files`
// holds one picture's bytes, or the frames of one video in order.
FeatureKey feature_key(std::string_view tenant, const Digest& vision, const Digest& preprocess,
                       std::span<const std::span<const std::byte>> files);

struct FeatureMeta {
  FeatureId id;
  Digest vision_digest;
  Digest preprocess_digest;
  Digest image_digest;
  std::array<std::int64_t, 3> grid_thw{};  // in patches, before merging
  std::string model;                       // informative: digests decide
  DType dtype = DType::kF32;               // what the rows are rounded to, and stored as: F32, F16 or BF16
  // Informative: what the encoder computed in, "F32" or "BF16". Empty where the file does not say. It is not in the id:
  // docs/adr/0006-feature-identity.md.
  std::string arithmetic;

  bool operator==(const FeatureMeta&) const = default;
};

// Whether the feature's id was made for this tenant. The number of files is not in the metadata: one, or any number
// whose last group of `temporal_patch_size` frames is the grid's last.
bool belongs_to(const FeatureMeta& meta, std::string_view tenant, std::int64_t temporal_patch_size = 2);

struct Feature {
  FeatureMeta meta;
  Matrix rows;  // [rows, width], f32 in memory whatever meta.dtype is; width is the language model's
};

// A fresh feature (F32) under this key.
Feature make_feature(const FeatureKey& key, std::array<std::int64_t, 3> grid_thw, std::string model, Matrix rows);

// Checks grid, shape and values: each grid entry in [1, 10^6]; rows * merge^2 = t * h * w, h and w multiples of merge
// (any merge when `merge` is 0); width as given (any when 0); every value finite. kInvalidArgument otherwise.
Status check_rows(const FeatureMeta& meta, ConstMatrixView rows, std::int64_t merge, std::int64_t width);
Status check_shape(const std::array<std::int64_t, 3>& grid_thw, std::int64_t rows, std::int64_t cols,
                   std::int64_t merge, std::int64_t width);

// Rounds every value to `dtype` (F32: nothing to do) and sets meta.dtype, so that a feature reads the same whether it
// was just encoded or comes from a file of that type. kInvalidArgument, and the feature untouched, where a finite value
// does not fit. A feature already rounded to another 16-bit type is refused: rounding twice is not rounding once.
Status round_feature(Feature& feature, DType dtype);

// kFailedPrecondition, naming both digests, unless the feature was made by the vision encoder that the language side's
// checkpoint names, or by one that an operator lists as accepted.
Status check_feature(const FeatureMeta& meta, const Digest& vision_digest, std::span<const Digest> also_accepted);

}  // namespace chiasm

template <>
struct std::hash<chiasm::FeatureId> {
  std::size_t operator()(const chiasm::FeatureId& id) const noexcept {
    std::size_t out = 0;  // the digest is uniform: any eight bytes of it are a hash
    for (std::size_t i = 0; i < sizeof(out); ++i) out = out << 8 | id.digest.bytes[i];
    return out;
  }
};
