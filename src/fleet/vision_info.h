// What a vision server says about itself: GET /v1/info.
//
//   {"object":"vision.info","model":"…","version":"…","vision_digest":"64 hex digits","preprocess_digest":"…",
//    "hidden_size":1536,
//    "preprocessor":{"min_pixels","max_pixels","patch_size","temporal_patch_size","merge_size",
//                    "image_mean":[3 numbers],"image_std":[3 numbers]},
//    "limits":{"max_body":bytes,"max_megapixels":number,"max_picture_tokens":rows}}
//
// Further fields are ignored. Thread contract: plain values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/result.h"
#include "models/config.h"

namespace chiasm {

struct VisionLimits {
  std::uint64_t max_body = 0;           // bytes of a request's body
  double max_megapixels = 0;            // of a picture as stored
  std::int64_t max_picture_tokens = 0;  // feature rows
};

struct VisionInfo {
  std::string model, version;
  Digest vision_digest;
  Digest preprocess_digest;      // preprocessor.digest()
  std::int64_t hidden_size = 0;  // width of a feature row
  PreprocessorConfig preprocessor;
  VisionLimits limits;

  // The digest of the preprocessor with these overrides: what a key has that is made for them.
  Digest preprocess_digest_with(std::optional<std::int64_t> min_pixels, std::optional<std::int64_t> max_pixels) const;
};

// `source` names the text in errors. kInvalidArgument or kNotFound for a field of another type, out of range, or
// absent; kDataLoss where preprocess_digest is not the digest of the preprocessor given beside it.
Result<VisionInfo> parse_vision_info(std::string_view text, std::string source);

// The same as JSON; preprocess_digest is written as it is in `info`.
std::string vision_info_json(const VisionInfo& info);

}  // namespace chiasm
