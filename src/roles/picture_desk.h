// Takes the pictures of a request in whatever form they come, and gives features: bytes and URLs through the Eye, ids
// from what is kept, features and embeddings from the request itself.
//
// Features that a client brings are named by their content, never by what their metadata claim: nobody can give a
// picture's name to other values. Thread contract: any thread; the Eye and the client must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/chat_request.h"
#include "api/chat_response.h"
#include "http/client.h"
#include "models/config.h"
#include "roles/eye.h"

namespace chiasm {

struct PictureDeskOptions {
  FetchRules media;  // picture URLs; none where no domain is listed
  std::chrono::milliseconds media_timeout{10'000};
  std::uint64_t max_picture = 64 << 20;  // bytes of one picture's file
  int parallel = 8;                      // pictures of one request looked at together
  Digest vision_digest;                  // of the features that the language model takes
  std::vector<Digest> accepted;          // further ones
};

// The pictures of one message list, in order: what the prompt needs of them, and what is told about them.
struct LookedPictures {
  std::vector<std::shared_ptr<const Feature>> images, videos;
  std::vector<VisionUse> uses;  // in the order of the parts
  double ms = 0;                // wall time of all together
};

struct LookContext {
  std::optional<std::int64_t> min_pixels, max_pixels;
  std::string_view bounds_in;  // where they stand in the request: "mm_processor_kwargs."
  std::string_view tenant;
  Deadline deadline = kNoDeadline;
  const CancelFlag* cancel = nullptr;
};

class PictureDesk {
 public:
  PictureDesk(Eye& eye, HttpClient& client, const ModelConfig& config, PictureDeskOptions options)
      : eye_(eye), client_(client), config_(config), options_(std::move(options)) {}

  // `parts` of kind kImage and kVideo. The first error in their order ends it, with its param.
  ApiResult<LookedPictures> look(std::span<const ContentPart* const> parts, const LookContext& context) const;
  ApiResult<Sight> look_at(const ContentPart& part, const LookContext& context) const;

  // kModelMismatch where a kept feature is of a vision encoder that this model does not take.
  ApiResult<void> check(const Sight& sight, const std::string& param) const;

  // An error of an Eye in the words for clients.
  static ApiError vision_error(const Error& error, const std::string& param);

 private:
  ApiResult<void> check_bounds(const LookContext& context) const;
  ApiResult<std::string> picture_bytes(const ImageInput& image, const LookContext& context) const;
  ApiResult<Sight> feature_file(const ImageInput& image) const;
  ApiResult<Sight> embeds(const ImageInput& image) const;
  LookRequest request_of(const LookContext& context, ImageInput::Detail detail) const;

  Eye& eye_;
  HttpClient& client_;
  const ModelConfig& config_;
  const PictureDeskOptions options_;
};

}  // namespace chiasm
