#include "api/chat_response.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

namespace chiasm {
namespace {

using Object = nlohmann::ordered_json;

// What OpenAI says for a token of no probability: JSON has no infinity.
constexpr double kLeastLogprob = -9999;

// One line; bytes that are no UTF-8 become U+FFFD, so that nothing throws.
std::string line_of(const Object& object) { return object.dump(-1, ' ', false, Object::error_handler_t::replace); }

// Microseconds are as fine as anyone can measure here.
double rounded(double ms) { return std::isfinite(ms) ? std::round(ms * 1000) / 1000 : 0; }

Object token_object(const TokenChoice& token) {
  Object bytes = Object::array();
  for (const char c : token.bytes) bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  const double logprob = std::isfinite(token.logprob) ? std::max(token.logprob, kLeastLogprob) : kLeastLogprob;
  return {{"token", token.bytes}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
}

Object logprobs_object(const std::vector<TokenLogprobs>& tokens) {
  Object content = Object::array();
  for (const TokenLogprobs& token : tokens) {
    Object one = token_object(token.chosen);
    Object top = Object::array();
    for (const TokenChoice& other : token.top) top.push_back(token_object(other));
    one["top_logprobs"] = std::move(top);
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Object logprobs_or_null(const std::optional<std::vector<TokenLogprobs>>& tokens) {
  return tokens ? logprobs_object(*tokens) : Object();
}

Object usage_object(const AnswerUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

Object vision_list(const std::vector<VisionUse>& vision) {
  Object out = Object::array();
  for (const VisionUse& use : vision)
    out.push_back(
        {{"feature_id", use.feature_id}, {"tokens", use.tokens}, {"source", use.source}, {"ms", rounded(use.ms)}});
  return out;
}

Object timing_object(const AnswerTiming& timing) {
  return {{"queue_ms", rounded(timing.queue_ms)},
          {"vision_ms", rounded(timing.vision_ms)},
          {"prefill_ms", rounded(timing.prefill_ms)},
          {"decode_ms", rounded(timing.decode_ms)}};
}

Object head_object(const AnswerHead& head, std::string_view object) {
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

Object chunk_object(const AnswerHead& head, Object choices, bool with_usage) {
  Object out = head_object(head, "chat.completion.chunk");
  out["choices"] = std::move(choices);
  if (with_usage) out["usage"] = nullptr;
  return out;
}

std::string delta_json(const AnswerHead& head, std::int64_t index, Object delta, Object logprobs, Object finish_reason,
                       bool with_usage) {
  Object choice{{"index", index},
                {"delta", std::move(delta)},
                {"logprobs", std::move(logprobs)},
                {"finish_reason", std::move(finish_reason)}};
  Object choices = Object::array();
  choices.push_back(std::move(choice));
  return line_of(chunk_object(head, std::move(choices), with_usage));
}

// A question that failed has null for its answer.
Object answer_object(const AskAnswer& answer) {
  const bool failed = answer.error.has_value();
  Object out{{"index", answer.index}, {"question", answer.question}};
  out["answer"] = failed ? Object() : Object(answer.answer);
  out["finish_reason"] = failed ? Object() : Object(answer.finish_reason);
  out["logprobs"] = logprobs_or_null(answer.logprobs);
  out["usage"] = usage_object(answer.usage);
  out["timing"] = timing_object(answer.timing);
  out["error"] = failed ? Object::parse(error_json(*answer.error))["error"] : Object();
  return out;
}

// Events of /v1/ask name themselves first, so that a reader of the stream can tell them at a glance.
Object event_object(std::string_view object, const AnswerHead& head) { return {{"object", object}, {"id", head.id}}; }

Object model_object(const ModelCard& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "chiasm"},
          {"max_model_len", model.max_model_len}};
}

}  // namespace

std::string chat_completion_json(const AnswerHead& head, const std::vector<ChatChoice>& choices,
                                 const AnswerUsage& usage, const std::vector<VisionUse>& vision,
                                 const AnswerTiming& timing) {
  Object out = head_object(head, "chat.completion");
  out["choices"] = Object::array();
  for (const ChatChoice& choice : choices)
    out["choices"].push_back({{"index", choice.index},
                              {"message", {{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}}},
                              {"logprobs", logprobs_or_null(choice.logprobs)},
                              {"finish_reason", choice.finish_reason}});
  out["usage"] = usage_object(usage);
  out["vision"] = vision_list(vision);
  out["timing"] = timing_object(timing);
  return line_of(out);
}

std::string role_chunk_json(const AnswerHead& head, std::int64_t index, bool with_usage) {
  return delta_json(head, index, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr, with_usage);
}

std::string text_chunk_json(const AnswerHead& head, std::int64_t index, std::string_view text,
                            const std::vector<TokenLogprobs>* logprobs, bool with_usage) {
  return delta_json(head, index, {{"content", text}}, logprobs == nullptr ? Object() : logprobs_object(*logprobs),
                    nullptr, with_usage);
}

std::string finish_chunk_json(const AnswerHead& head, std::int64_t index, std::string_view finish_reason,
                              bool with_usage) {
  return delta_json(head, index, Object::object(), nullptr, finish_reason, with_usage);
}

std::string usage_chunk_json(const AnswerHead& head, const AnswerUsage& usage, const std::vector<VisionUse>& vision,
                             const AnswerTiming& timing) {
  Object out = chunk_object(head, Object::array(), false);
  out["usage"] = usage_object(usage);
  out["vision"] = vision_list(vision);
  out["timing"] = timing_object(timing);
  return line_of(out);
}

std::string ask_result_json(const AnswerHead& head, const std::vector<AskAnswer>& answers, const AnswerUsage& usage,
                            const std::vector<VisionUse>& vision) {
  Object out = head_object(head, "ask.result");
  out["answers"] = Object::array();
  for (const AskAnswer& answer : answers) out["answers"].push_back(answer_object(answer));
  out["usage"] = usage_object(usage);
  out["vision"] = vision_list(vision);
  return line_of(out);
}

std::string ask_vision_json(const AnswerHead& head, const std::vector<VisionUse>& vision) {
  Object out = event_object("ask.vision", head);
  out["created"] = head.created;
  out["model"] = head.model;
  out["vision"] = vision_list(vision);
  return line_of(out);
}

std::string ask_delta_json(const AnswerHead& head, std::int64_t index, std::string_view text) {
  Object out = event_object("ask.delta", head);
  out["index"] = index;
  out["text"] = text;
  return line_of(out);
}

std::string ask_answer_json(const AnswerHead& head, const AskAnswer& answer) {
  Object out = event_object("ask.answer", head);
  out.update(answer_object(answer));
  return line_of(out);
}

std::string ask_done_json(const AnswerHead& head, const AnswerUsage& usage) {
  Object out = event_object("ask.done", head);
  out["usage"] = usage_object(usage);
  return line_of(out);
}

std::string model_list_json(const std::vector<ModelCard>& models) {
  Object data = Object::array();
  for (const ModelCard& model : models) data.push_back(model_object(model));
  return line_of({{"object", "list"}, {"data", std::move(data)}});
}

std::string model_json(const ModelCard& model) { return line_of(model_object(model)); }

std::string image_json(const ImageRecord& image) {
  return line_of({{"id", image.id},
                  {"object", "image"},
                  {"grid_thw", {image.grid_thw[0], image.grid_thw[1], image.grid_thw[2]}},
                  {"tokens", image.tokens},
                  {"source", image.source},
                  {"ms", rounded(image.ms)}});
}

std::string deleted_json(std::string_view id, std::string_view object) {
  return line_of({{"id", id}, {"object", object}, {"deleted", true}});
}

}  // namespace chiasm
