// Any body is either refused with an error that can be shown, or a request whose every field keeps its promise.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "api/chat_request.h"
#include "base/json.h"
#include "expect.h"

namespace {

using namespace chiasm;
using fuzz::expect;

const RequestLimits kLimits{.max_images = 4,
                            .max_messages = 4,
                            .max_questions = 4,
                            .max_text = 200,
                            .max_depth = 12,
                            .max_n = 4,
                            .max_schema = 100};

void check_error(const ApiError& error) {
  const int status = http_status(error.kind);
  expect(status == 400 || status == 413 || status == 503);
  expect(!error.message.empty() && error.message.size() < 4000);
  const auto json = Json::parse(error_json(error), "error");
  expect(json && json->root().at("error")->at("message")->string().has_value());
}

void check_image(const ImageInput& image) {
  expect(!image.param.empty());
  switch (image.kind) {
    case ImageInput::Kind::kData:
    case ImageInput::Kind::kFeatures: expect(!image.bytes.empty() && image.url.empty() && image.id.empty()); break;
    case ImageInput::Kind::kEmbeds: expect(!image.bytes.empty() && !image.grid.empty()); break;
    case ImageInput::Kind::kUrl: expect(image.url.size() > 7 && image.url.size() <= 8192); break;
    case ImageInput::Kind::kId: expect(image.id.size() == 64); break;
  }
}

void check_part(const ContentPart& part, std::size_t& images, std::size_t& text) {
  expect((part.kind == ContentPart::Kind::kText) == part.images.empty());
  expect(part.kind != ContentPart::Kind::kImage || part.images.size() == 1);
  expect(is_utf8(part.text));
  text += part.text.size();
  images += part.images.size();
  for (const ImageInput& image : part.images) {
    check_image(image);
    const bool file = image.kind == ImageInput::Kind::kData || image.kind == ImageInput::Kind::kUrl;
    expect(part.kind != ContentPart::Kind::kVideo || file || part.images.size() == 1);
  }
}

bool within(const std::optional<double>& value, double low, double high) {
  return !value || (std::isfinite(*value) && *value >= low && *value <= high);
}

void check_sampling(const SamplingFields& fields) {
  expect(within(fields.temperature, 0, 2) && within(fields.top_p, 0, 1) && within(fields.min_p, 0, 1));
  expect(within(fields.repetition_penalty, 0, 100) && within(fields.presence_penalty, -2, 2));
  expect(within(fields.frequency_penalty, -2, 2) && fields.top_k.value_or(0) >= 0);
  expect(fields.top_p.value_or(1) > 0 && fields.repetition_penalty.value_or(1) > 0);
  for (const auto& [id, bias] : fields.logit_bias) expect(id >= 0 && within(bias, -100, 100));
  expect(fields.max_tokens.value_or(1) >= 1 && fields.min_tokens >= 0);
  expect(fields.min_tokens <= fields.max_tokens.value_or(fields.min_tokens));
  expect(fields.stop.size() <= 16 && fields.stop_token_ids.size() <= 256);
  for (const std::string& stop : fields.stop) expect(!stop.empty());
  expect(fields.logprobs >= -1 && fields.logprobs <= 20);
  const bool schema = fields.format.kind == ResponseFormat::Kind::kJsonSchema;
  expect(schema != fields.format.schema.empty() && fields.format.schema.size() <= kLimits.max_schema);
  expect(!schema || Json::parse(fields.format.schema, "schema")->root().is_object());
}

void check_pixels(const std::optional<std::int64_t>& least, const std::optional<std::int64_t>& most) {
  expect(least.value_or(1) >= 1 && most.value_or(1) >= 1 && (!least || !most || *least <= *most));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  std::size_t images = 0, text = 0;
  if (const auto chat = parse_chat_request(body, kLimits)) {
    expect(!chat->model.empty() && !chat->messages.empty() && chat->messages.size() <= kLimits.max_messages);
    for (const RequestMessage& message : chat->messages) {
      expect(message.role == "system" || message.role == "user" || message.role == "assistant");
      expect(!message.parts.empty() || message.role == "assistant");
      for (const ContentPart& part : message.parts) check_part(part, images, text);
    }
    expect(images <= kLimits.max_images && text <= kLimits.max_text);
    expect(chat->n >= 1 && chat->n <= kLimits.max_n && (chat->stream || !chat->include_usage));
    check_sampling(chat->sampling);
    check_pixels(chat->min_pixels, chat->max_pixels);
  } else {
    check_error(chat.error());
  }
  images = text = 0;
  if (const auto ask = parse_ask_request(body, kLimits)) {
    expect(!ask->questions.empty() && ask->questions.size() <= kLimits.max_questions && !ask->pictures.empty());
    for (const std::string& question : ask->questions) expect(!question.empty() && (text += question.size()) > 0);
    for (const ContentPart& picture : ask->pictures) {
      expect(picture.kind != ContentPart::Kind::kText);
      check_part(picture, images, text);
    }
    expect(images <= kLimits.max_images && text + ask->system.value_or("").size() <= kLimits.max_text);
    check_sampling(ask->sampling);
    check_pixels(ask->min_pixels, ask->max_pixels);
  } else {
    check_error(ask.error());
  }
  if (const auto upload = parse_image_upload(body, kLimits)) {
    check_image(upload->image);
    check_pixels(upload->min_pixels, upload->max_pixels);
  } else {
    check_error(upload.error());
  }
  return 0;
}
