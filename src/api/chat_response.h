// Answers as the OpenAI API spells them: whole, in chunks, and the rows of /v1/ask.
//
// Thread contract: plain values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/error.h"

namespace chiasm {

struct AnswerUsage {
  std::int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
};

// What became of one picture.
struct VisionUse {
  std::string feature_id;
  std::int64_t tokens = 0;
  std::string source;  // "memory", "disk", "encoded", "vision_server", "request"
  double ms = 0;
};

// Where the time of one answer went. An extra field "timing" of ours.
struct AnswerTiming {
  double queue_ms = 0, vision_ms = 0, prefill_ms = 0, decode_ms = 0;
};

struct TokenChoice {
  std::string bytes;  // of the token
  double logprob = 0;
};
struct TokenLogprobs {
  TokenChoice chosen;
  std::vector<TokenChoice> top;
};

struct ChatChoice {
  std::int64_t index = 0;
  std::string content;
  std::string finish_reason;  // "stop", "length"
  std::optional<std::vector<TokenLogprobs>> logprobs;
};

// What all answers and chunks of one request carry.
struct AnswerHead {
  std::string id;  // "chatcmpl-…"
  std::int64_t created = 0;
  std::string model;
};

std::string chat_completion_json(const AnswerHead& head, const std::vector<ChatChoice>& choices,
                                 const AnswerUsage& usage, const std::vector<VisionUse>& vision,
                                 const AnswerTiming& timing);

// Chunks of a stream, each the JSON of one event.
std::string role_chunk_json(const AnswerHead& head, std::int64_t index, bool with_usage);
std::string text_chunk_json(const AnswerHead& head, std::int64_t index, std::string_view text,
                            const std::vector<TokenLogprobs>* logprobs, bool with_usage);
std::string finish_chunk_json(const AnswerHead& head, std::int64_t index, std::string_view finish_reason,
                              bool with_usage);
// The last one, with empty choices; `with_usage` above says "usage": null in the others.
std::string usage_chunk_json(const AnswerHead& head, const AnswerUsage& usage, const std::vector<VisionUse>& vision,
                             const AnswerTiming& timing);

// One answered question of /v1/ask.
struct AskAnswer {
  std::int64_t index = 0;
  std::string question, answer, finish_reason;
  AnswerUsage usage;
  AnswerTiming timing;
  std::optional<std::vector<TokenLogprobs>> logprobs;
  std::optional<ApiError> error;  // this question's own
};
std::string ask_result_json(const AnswerHead& head, const std::vector<AskAnswer>& answers, const AnswerUsage& usage,
                            const std::vector<VisionUse>& vision);
// Events of its stream: {"object":"ask.vision",…} first, {"object":"ask.delta","index":0,"text":"…"},
// {"object":"ask.answer",…} as each finishes, {"object":"ask.done","usage":…} last.
std::string ask_vision_json(const AnswerHead& head, const std::vector<VisionUse>& vision);
std::string ask_delta_json(const AnswerHead& head, std::int64_t index, std::string_view text);
std::string ask_answer_json(const AnswerHead& head, const AskAnswer& answer);
std::string ask_done_json(const AnswerHead& head, const AnswerUsage& usage);

struct ModelCard {
  std::string id;
  std::int64_t created = 0;
  std::int64_t max_model_len = 0;
};
std::string model_list_json(const std::vector<ModelCard>& models);
std::string model_json(const ModelCard& model);

// GET and POST /v1/images.
struct ImageRecord {
  std::string id;
  std::int64_t grid_thw[3] = {0, 0, 0};
  std::int64_t tokens = 0;
  std::string source;
  double ms = 0;
};
std::string image_json(const ImageRecord& image);
std::string deleted_json(std::string_view id, std::string_view object);

}  // namespace chiasm
