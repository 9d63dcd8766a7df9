// POST /v1/chat/completions and POST /v1/ask as plain structs, checked in every field.
//
// Unknown fields are ignored; fields that would change the answer and are not supported are refused by name. Data URIs
// and base64 are decoded here; what the bytes hold is for others. Thread contract: plain values, pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/error.h"

namespace chiasm {

// Where one picture (or frame, or already encoded picture) comes from.
struct ImageInput {
  enum class Kind : std::uint8_t {
    kData,      // bytes: the picture's file
    kUrl,       // url: http or https
    kId,        // id: 64 hex digits
    kFeatures,  // bytes: a feature file
    kEmbeds,    // bytes: .npy of image_embeds [rows, width]; grid: .npy of image_grid_thw
  };
  Kind kind = Kind::kData;
  std::string bytes, grid, url, id;
  enum class Detail : std::uint8_t { kAuto, kLow, kHigh } detail = Detail::kAuto;
  std::string param;  // "messages[0].content[1].image_url.url", for errors
};

struct ContentPart {
  enum class Kind : std::uint8_t { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;
  std::vector<ImageInput> images;  // kImage: one; kVideo: its frames, or one of kId or kFeatures
  std::string param;
};

struct RequestMessage {
  std::string role;
  std::vector<ContentPart> parts;
};

struct ResponseFormat {
  enum class Kind : std::uint8_t { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string schema;  // kJsonSchema: the schema as JSON text
};

// What decides how tokens are chosen; absent: the model's generation_config.json.
struct SamplingFields {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  double presence_penalty = 0, frequency_penalty = 0;
  std::map<std::int32_t, double> logit_bias;
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> max_tokens;  // max_completion_tokens wins over max_tokens
  std::int64_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::vector<std::int64_t> stop_token_ids;
  std::int64_t logprobs = -1;  // -1: none; else top_logprobs
  ResponseFormat format;
};

struct ChatRequest {
  std::string model;
  std::vector<RequestMessage> messages;
  SamplingFields sampling;
  std::int64_t n = 1;
  bool stream = false, include_usage = false;
  std::optional<std::int64_t> min_pixels, max_pixels;  // mm_processor_kwargs
};

// {"model", "system", "images": [part or data URI, ...], "questions": ["…", …], "stream", sampling fields}
struct AskRequest {
  std::string model;
  std::optional<std::string> system;
  std::vector<ContentPart> pictures;  // kImage and kVideo, before each question
  std::vector<std::string> questions;
  SamplingFields sampling;
  bool stream = false;
  std::optional<std::int64_t> min_pixels, max_pixels;
};

struct RequestLimits {
  std::size_t max_images = 64;  // pictures and frames of one request
  std::size_t max_messages = 1024;
  std::size_t max_questions = 256;
  std::size_t max_text = 4 << 20;  // bytes of all text together
  std::size_t max_depth = 32;      // of the JSON
  std::int64_t max_n = 16;
  std::size_t max_schema = 64 << 10;
};

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);
ApiResult<AskRequest> parse_ask_request(std::string_view body, const RequestLimits& limits);

// What POST /v1/images takes as JSON: {"image": a part or a data URI, "min_pixels", "max_pixels"}.
struct ImageUpload {
  ImageInput image;
  std::optional<std::int64_t> min_pixels, max_pixels;
};
ApiResult<ImageUpload> parse_image_upload(std::string_view body, const RequestLimits& limits);

}  // namespace chiasm
