#include "api/chat_request.h"

#include <new>
#include <utility>

#include "api/request_fields.h"

namespace chiasm {
namespace {

tl::unexpected<ApiError> no_memory() {
  return tl::unexpected(
      ApiError{ErrorKind::kOverloaded, "The server has no memory for this request at the moment.", {}});
}

}  // namespace

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) try {
  API_ASSIGN(RequestDraft draft, read_request(body, kChatRequest, limits));
  ChatRequest out;
  out.model = std::move(draft.model);
  out.messages = std::move(draft.messages);
  out.sampling = std::move(draft.sampling);
  out.n = draft.n;
  out.stream = draft.stream;
  out.include_usage = draft.include_usage;
  out.min_pixels = draft.min_pixels;
  out.max_pixels = draft.max_pixels;
  return out;
} catch (const std::bad_alloc&) {
  return no_memory();
}

ApiResult<AskRequest> parse_ask_request(std::string_view body, const RequestLimits& limits) try {
  API_ASSIGN(RequestDraft draft, read_request(body, kAskRequest, limits));
  AskRequest out;
  out.model = std::move(draft.model);
  out.system = std::move(draft.system);
  out.pictures = std::move(draft.pictures);
  out.questions = std::move(draft.questions);
  out.sampling = std::move(draft.sampling);
  out.stream = draft.stream;
  out.min_pixels = draft.min_pixels;
  out.max_pixels = draft.max_pixels;
  return out;
} catch (const std::bad_alloc&) {
  return no_memory();
}

ApiResult<ImageUpload> parse_image_upload(std::string_view body, const RequestLimits& limits) try {
  API_ASSIGN(RequestDraft draft, read_request(body, kUploadRequest, limits));
  return ImageUpload{std::move(*draft.image), draft.min_pixels, draft.max_pixels};
} catch (const std::bad_alloc&) {
  return no_memory();
}

}  // namespace chiasm
