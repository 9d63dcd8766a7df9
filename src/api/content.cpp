#include "api/content.h"

#include <algorithm>
#include <array>

#include "api/image_input.h"

namespace chiasm {
namespace {

constexpr std::array<std::string_view, 7> kPartTypes = {"text",         "image_url", "image_id", "image_features",
                                                        "image_embeds", "video",     "refusal"};
// Of other servers: refused by name, so that nobody takes them for misspelt.
constexpr std::array<std::string_view, 7> kForeignParts = {"input_audio", "audio_url", "video_url",   "file",
                                                           "input_file",  "image_pil", "video_embeds"};

// A video is a list of frames, or an object that names one that is already encoded.
ApiResult<ContentPart> read_video(const FieldValue& part, const FieldValue& video, RequestDraft& draft) {
  constexpr std::string_view kWhat =
      "a list of frames (data URIs or image_url parts), or an object with image_id or image_features";
  ContentPart out{ContentPart::Kind::kVideo, {}, {}, part.path};
  if (video.value.is_object()) {
    API_CHECK(draft.count_image(video));
    API_ASSIGN(ImageInput image, read_image(video));
    if (image.kind != ImageInput::Kind::kId && image.kind != ImageInput::Kind::kFeatures) return expected(video, kWhat);
    out.images.push_back(std::move(image));
    return out;
  }
  API_ASSIGN(const auto frames, video.elements(draft.limits.max_images, kWhat));
  if (frames.empty()) return expected(video, kWhat);
  for (const FieldValue& frame : frames) {
    API_CHECK(draft.count_image(frame));
    API_ASSIGN(ImageInput image, read_image(frame));
    if (image.kind != ImageInput::Kind::kData && image.kind != ImageInput::Kind::kUrl)
      return invalid(frame.path,
                     "expected a frame as a data URI or URL: what is already encoded is a video of its own");
    out.images.push_back(std::move(image));
  }
  return out;
}

ApiResult<ContentPart> read_part(const FieldValue& field, RequestDraft& draft) {
  API_ASSIGN(const auto members, field.members("a part, such as {\"type\": \"text\", \"text\": \"...\"}"));
  API_ASSIGN(const std::string_view type, type_of_part(field, members, kPartTypes, kForeignParts));
  const FieldValue* value = find_member(members, type);
  if (value == nullptr) return invalid(field.path, "expected a member \"{}\" beside its type", type);
  if (type == "text" || type == "refusal") {
    API_ASSIGN(const std::string_view text, value->string());
    API_CHECK(draft.count_text(*value, text.size()));
    return ContentPart{ContentPart::Kind::kText, std::string(text), {}, field.path};
  }
  if (type == "video") return read_video(field, *value, draft);
  API_CHECK(draft.count_image(field));
  API_ASSIGN(ImageInput image, read_image(field));
  ContentPart out{ContentPart::Kind::kImage, {}, {}, field.path};
  out.images.push_back(std::move(image));
  return out;
}

ApiStatus read_content(const FieldValue& content, RequestMessage& message, RequestDraft& draft) {
  if (content.value.is_string()) {
    API_ASSIGN(const std::string_view text, content.string());
    API_CHECK(draft.count_text(content, text.size()));
    message.parts.push_back({ContentPart::Kind::kText, std::string(text), {}, content.path});
    return {};
  }
  constexpr std::string_view kWhat = "a string or a list of parts";
  const std::size_t limit = draft.limits.max_images + draft.limits.max_messages;
  API_ASSIGN(const auto parts, content.elements(limit, kWhat));
  if (parts.empty()) return expected(content, kWhat);
  for (const FieldValue& field : parts) {
    API_ASSIGN(ContentPart part, read_part(field, draft));
    message.parts.push_back(std::move(part));
  }
  return {};
}

ApiResult<std::string> read_role(const FieldValue& message, const FieldValue* role) {
  constexpr std::string_view kRoles = "one of system, developer, user, assistant";
  if (role == nullptr) return invalid(message.path + ".role", "missing, expected {}", kRoles);
  API_ASSIGN(const std::string_view name, role->string());
  if (name == "system" || name == "user" || name == "assistant") return std::string(name);
  if (name == "developer") return std::string("system");
  if (name == "tool" || name == "function")
    return refuse(ErrorKind::kUnsupported, role->path, "answers of tools are not supported here");
  return expected(*role, kRoles);
}

ApiResult<RequestMessage> read_message(const FieldValue& field, RequestDraft& draft) {
  API_ASSIGN(const auto members, field.members("a message, such as {\"role\": \"user\", \"content\": \"...\"}"));
  RequestMessage out;
  API_ASSIGN(out.role, read_role(field, find_member(members, "role")));
  for (const char* name : {"tool_calls", "function_call", "audio"})
    if (const FieldValue* call = find_member(members, name); call != nullptr && call->value.text() != "[]")
      return refuse(ErrorKind::kUnsupported, call->path, "tools and audio are not supported here");
  if (const FieldValue* content = find_member(members, "content"); content != nullptr) {
    API_CHECK(read_content(*content, out, draft));
  } else if (out.role != "assistant") {
    return invalid(field.path + ".content", "missing, expected a string or a list of parts");
  }
  return out;
}

}  // namespace

ApiStatus RequestDraft::count_text(const FieldValue& field, std::size_t bytes) {
  text_bytes_ += bytes;
  if (text_bytes_ <= limits.max_text) return {};
  return refuse(ErrorKind::kTooLarge, field.path,
                fmt::format("expected at most {} bytes of text in a request, got more with this one", limits.max_text));
}

ApiStatus RequestDraft::count_image(const FieldValue& field) {
  if (++images_ <= limits.max_images) return {};
  return invalid(field.path, "expected at most {} pictures and frames in a request, this is one more",
                 limits.max_images);
}

ApiStatus read_messages(const FieldValue& field, RequestDraft& draft) {
  constexpr std::string_view kWhat = "a list of messages";
  API_ASSIGN(const auto messages, field.elements(draft.limits.max_messages, kWhat));
  if (messages.empty()) return expected(field, kWhat);
  for (const FieldValue& one : messages) {
    API_ASSIGN(RequestMessage message, read_message(one, draft));
    draft.messages.push_back(std::move(message));
  }
  return {};
}

ApiStatus read_system(const FieldValue& field, RequestDraft& draft) {
  API_ASSIGN(const std::string_view text, field.string());
  API_CHECK(draft.count_text(field, text.size()));
  draft.system = text;
  return {};
}

ApiStatus read_pictures(const FieldValue& field, RequestDraft& draft) {
  constexpr std::string_view kWhat = "a list of pictures (data URIs, URLs or parts)";
  API_ASSIGN(const auto pictures, field.elements(draft.limits.max_images, kWhat));
  if (pictures.empty()) return expected(field, kWhat);
  for (const FieldValue& one : pictures) {
    const bool is_part = one.value.is_object() && !one.value.find("url");
    if (is_part) {
      API_ASSIGN(ContentPart part, read_part(one, draft));
      if (part.kind == ContentPart::Kind::kText) return invalid(one.path, "expected a picture or video, got text");
      draft.pictures.push_back(std::move(part));
      continue;
    }
    API_CHECK(draft.count_image(one));
    API_ASSIGN(ImageInput image, read_image(one));
    ContentPart part{ContentPart::Kind::kImage, {}, {}, one.path};
    part.images.push_back(std::move(image));
    draft.pictures.push_back(std::move(part));
  }
  return {};
}

ApiStatus read_questions(const FieldValue& field, RequestDraft& draft) {
  constexpr std::string_view kWhat = "a list of questions";
  API_ASSIGN(const auto questions, field.elements(draft.limits.max_questions, kWhat));
  if (questions.empty()) return expected(field, kWhat);
  for (const FieldValue& one : questions) {
    API_ASSIGN(const std::string_view text, one.text());
    API_CHECK(draft.count_text(one, text.size()));
    draft.questions.emplace_back(text);
  }
  return {};
}

ApiStatus read_upload(const FieldValue& field, RequestDraft& draft) {
  API_CHECK(draft.count_image(field));
  API_ASSIGN(draft.image, read_image(field));
  return {};
}

}  // namespace chiasm
