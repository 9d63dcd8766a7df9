#include "api/request_fields.h"

#include <algorithm>
#include <array>
#include <limits>

#include "api/content.h"
#include "api/image_input.h"
#include "api/sampling_fields.h"

namespace chiasm {
namespace {

using Type = RequestField::Type;

constexpr std::uint8_t kChat = kChatRequest, kAsk = kAskRequest, kUpload = kUploadRequest, kNone = 0;
constexpr std::uint8_t kBoth = kChat | kAsk;
constexpr double kMaxTokens = 2147483647;
constexpr double kMaxPixels = 1099511627776;  // 2^40

// A number or flag of the draft, or of its sampling fields.
template <auto Member>
auto& member_of(RequestDraft& draft) {
  if constexpr (requires { draft.*Member; }) {
    return draft.*Member;
  } else {
    return draft.sampling.*Member;
  }
}

template <auto Member>
ApiStatus read_number(const FieldValue& value, const RequestField& field, RequestDraft& draft) {
  API_ASSIGN(member_of<Member>(draft), value.number(field.low, field.high, field.above_low));
  return {};
}

template <auto Member>
ApiStatus read_integer(const FieldValue& value, const RequestField& field, RequestDraft& draft) {
  const auto low = static_cast<std::int64_t>(field.low);
  API_ASSIGN(member_of<Member>(draft), value.integer(low, static_cast<std::int64_t>(highest(field, draft.limits))));
  return {};
}

template <auto Member>
ApiStatus read_bool(const FieldValue& value, const RequestField& /*field*/, RequestDraft& draft) {
  API_ASSIGN(member_of<Member>(draft), value.boolean());
  return {};
}

// A reader that needs no row of the table.
template <ApiStatus (*Read)(const FieldValue&, RequestDraft&)>
ApiStatus read_by(const FieldValue& value, const RequestField& /*field*/, RequestDraft& draft) {
  return Read(value, draft);
}

ApiStatus read_model(const FieldValue& value, RequestDraft& draft) {
  API_ASSIGN(draft.model, value.text());
  return {};
}

// An end user's name, for the operator's eyes at most; answers do not depend on it.
ApiStatus read_user(const FieldValue& value, RequestDraft& /*draft*/) {
  API_CHECK(value.string());
  return {};
}

ApiStatus read_top_k(const FieldValue& value, const RequestField& field, RequestDraft& draft) {
  API_ASSIGN(const std::int64_t top_k,
             value.integer(static_cast<std::int64_t>(field.low), static_cast<std::int64_t>(field.high)));
  draft.sampling.top_k = std::max<std::int64_t>(top_k, 0);  // -1 is all, as 0 is
  return {};
}

ApiStatus read_stream_options(const FieldValue& value, RequestDraft& draft) {
  draft.stream_options = true;
  API_ASSIGN(const Members members, value.members("an object with include_usage"));
  if (const FieldValue* usage = find_member(members, "include_usage"); usage != nullptr) {
    API_ASSIGN(draft.include_usage, usage->boolean());
  }
  return {};
}

ApiStatus set_pixels(const FieldValue& value, std::optional<std::int64_t>& pixels) {
  if (pixels) return invalid(value.path, "given twice, by itself and in mm_processor_kwargs");
  API_ASSIGN(pixels, value.integer(1, static_cast<std::int64_t>(kMaxPixels)));
  return {};
}
ApiStatus read_min_pixels(const FieldValue& value, RequestDraft& draft) { return set_pixels(value, draft.min_pixels); }
ApiStatus read_max_pixels(const FieldValue& value, RequestDraft& draft) { return set_pixels(value, draft.max_pixels); }

ApiStatus read_processor(const FieldValue& value, RequestDraft& draft) {
  API_ASSIGN(const Members members, value.members("an object with min_pixels and max_pixels"));
  for (const auto& [name, of] : members) {
    if (name != "min_pixels" && name != "max_pixels")
      return refuse(ErrorKind::kUnsupported, of.path, "not supported here: expected min_pixels or max_pixels");
    API_CHECK(set_pixels(of, name == "min_pixels" ? draft.min_pixels : draft.max_pixels));
  }
  return {};
}

// What the template of Qwen2-VL reads is refused where it would change the prompt; it reads nothing else.
ApiStatus read_template_arguments(const FieldValue& value, RequestDraft& /*draft*/) {
  API_ASSIGN(const Members members, value.members("an object"));
  for (const auto& [name, of] : members)
    if ((name == "add_vision_id" && of.value.text() != "false") ||
        (name == "add_generation_prompt" && of.value.text() != "true"))
      return refuse(ErrorKind::kUnsupported, of.path, "not supported here");
  return {};
}

constexpr std::array kFields = std::to_array<RequestField>({
    {"model", kBoth, kChat, Type::kString, 0, 0, false, read_by<read_model>,
     "A name of GET /v1/models. /v1/ask takes the server's first where it is absent."},
    {"messages", kChat, kChat, Type::kStructured, 0, 0, false, read_by<read_messages>, "The conversation so far."},
    {"system", kAsk, kNone, Type::kString, 0, 0, false, read_by<read_system>, "The system message of every question."},
    {"images", kAsk, kAsk, Type::kStructured, 0, 0, false, read_by<read_pictures>,
     "What the questions are about: data URIs, URLs, or parts as in a chat message."},
    {"questions", kAsk, kAsk, Type::kStructured, 0, 0, false, read_by<read_questions>,
     "Each is asked by itself, after all pictures."},
    {"image", kUpload, kUpload, Type::kStructured, 0, 0, false, read_by<read_upload>,
     "The picture: a data URI, a URL, or a part as in a chat message."},
    {"min_pixels", kAsk | kUpload, kNone, Type::kInteger, 1, kMaxPixels, false, read_by<read_min_pixels>,
     "Pictures are scaled to at least this many pixels."},
    {"max_pixels", kAsk | kUpload, kNone, Type::kInteger, 1, kMaxPixels, false, read_by<read_max_pixels>,
     "Pictures are scaled to at most this many pixels."},
    {"mm_processor_kwargs", kBoth, kNone, Type::kStructured, 0, 0, false, read_by<read_processor>,
     "The pixels that pictures are scaled to, as vLLM spells them."},
    {"stream", kBoth, kNone, Type::kBool, 0, 0, false, read_bool<&RequestDraft::stream>,
     "The answer comes as server-sent events."},
    {"stream_options", kChat, kNone, Type::kStructured, 0, 0, false, read_by<read_stream_options>,
     "Needs stream. include_usage: a last chunk tells the usage."},
    {"n", kChat, kNone, Type::kInteger, 1, 0, false, read_integer<&RequestDraft::n>, "How many answers."},
    {"max_completion_tokens", kBoth, kNone, Type::kInteger, 1, kMaxTokens, false,
     read_integer<&RequestDraft::max_completion_tokens>, "The longest answer, in tokens. Wins over max_tokens."},
    {"max_tokens", kBoth, kNone, Type::kInteger, 1, kMaxTokens, false, read_integer<&RequestDraft::max_tokens>,
     "The older name of max_completion_tokens."},
    {"min_tokens", kBoth, kNone, Type::kInteger, 0, kMaxTokens, false, read_integer<&SamplingFields::min_tokens>,
     "The shortest answer, in tokens."},
    {"temperature", kBoth, kNone, Type::kNumber, 0, 2, false, read_number<&SamplingFields::temperature>,
     "0: always the most likely token."},
    {"top_p", kBoth, kNone, Type::kNumber, 0, 1, false, read_number<&SamplingFields::top_p>,
     "Only the most likely tokens that together have this probability; 0: the most likely one."},
    {"top_k", kBoth, kNone, Type::kInteger, -1, kMaxTokens, false, read_top_k,
     "Only as many of the most likely tokens; 0 and -1: all."},
    {"min_p", kBoth, kNone, Type::kNumber, 0, 1, false, read_number<&SamplingFields::min_p>,
     "Only tokens that are at least this likely, measured by the most likely one."},
    {"presence_penalty", kBoth, kNone, Type::kNumber, -2, 2, false, read_number<&SamplingFields::presence_penalty>,
     "Taken from the logits of tokens that the answer has already."},
    {"frequency_penalty", kBoth, kNone, Type::kNumber, -2, 2, false, read_number<&SamplingFields::frequency_penalty>,
     "Taken from a token's logit for each time that the answer has it already."},
    {"repetition_penalty", kBoth, kNone, Type::kNumber, 0, 100, true, read_number<&SamplingFields::repetition_penalty>,
     "Divides the logits of tokens that prompt or answer have already; 1: none."},
    {"logit_bias", kBoth, kNone, Type::kStructured, 0, 0, false, read_by<read_logit_bias>,
     "Token id to what is added to its logit."},
    {"seed", kBoth, kNone, Type::kStructured, 0, 0, false, read_by<read_seed>,
     "The same seed and request give the same answer."},
    {"stop", kBoth, kNone, Type::kStructured, 0, 0, false, read_by<read_stop>,
     "Text that ends the answer and is not part of it."},
    {"stop_token_ids", kBoth, kNone, Type::kStructured, 0, 0, false, read_by<read_stop_token_ids>,
     "Tokens that end the answer, beside the model's own."},
    {"ignore_eos", kBoth, kNone, Type::kBool, 0, 0, false, read_bool<&SamplingFields::ignore_eos>,
     "The model's end tokens do not end the answer."},
    {"logprobs", kBoth, kNone, Type::kBool, 0, 0, false, read_by<read_logprobs>,
     "The answer tells how likely each token was."},
    {"top_logprobs", kBoth, kNone, Type::kInteger, 0, 20, false, read_integer<&RequestDraft::top_logprobs>,
     "Needs logprobs: as many of the most likely tokens for each place."},
    {"response_format", kBoth, kNone, Type::kStructured, 0, 0, false, read_by<read_response_format>,
     "json_object and json_schema constrain the answer, so that it always parses; stop and stop_token_ids do not end "
     "it."},
    {"chat_template_kwargs", kChat, kNone, Type::kStructured, 0, 0, false, read_by<read_template_arguments>,
     "Arguments of the chat template; the Qwen2-VL one has none that can be changed here."},
    {"user", kBoth, kNone, Type::kString, 0, 0, false, read_by<read_user>, "Not used."},
});

constexpr std::array kRefused = std::to_array<RefusedField>({
    {"tools", kBoth, "[]"},
    {"tool_choice", kBoth, "\"none\"|\"auto\""},
    {"functions", kBoth, "[]"},
    {"function_call", kBoth, "\"none\"|\"auto\""},
    {"modalities", kBoth, "[\"text\"]"},
    {"audio", kBoth, ""},
    {"prediction", kBoth, ""},
    {"web_search_options", kBoth, ""},
    {"echo", kBoth, "false"},
    {"best_of", kBoth, "1|1.0"},
    {"use_beam_search", kBoth, "false"},
    {"prompt_logprobs", kBoth, ""},
    {"guided_json", kBoth, ""},
    {"guided_regex", kBoth, ""},
    {"guided_choice", kBoth, ""},
    {"guided_grammar", kBoth, ""},
    {"structured_outputs", kBoth, ""},
    {"structural_tag", kBoth, ""},
    {"regex", kBoth, ""},
    {"ebnf", kBoth, ""},
    {"grammar", kBoth, ""},
    {"logits_processors", kBoth, "[]"},
    {"bad_words", kBoth, "[]"},
    {"allowed_token_ids", kBoth, ""},
    {"prompt_embeds", kBoth, ""},
    {"documents", kBoth, "[]"},
    {"chat_template", kBoth, ""},
    {"add_generation_prompt", kBoth, "true"},
    {"continue_final_message", kBoth, "false"},
    {"add_special_tokens", kBoth, "false"},
    {"skip_special_tokens", kBoth, "true"},
    {"include_stop_str_in_output", kBoth, "false"},
    {"truncate_prompt_tokens", kBoth, ""},
    {"return_tokens_as_token_ids", kBoth, "false"},
    {"return_token_ids", kBoth, "false"},
    {"logprob_token_ids", kBoth, "[]"},
    {"media_io_kwargs", kBoth, "{}"},
    {"n", kAsk, "1|1.0"},
    {"messages", kAsk, ""},
});

bool is_one_of(std::string_view text, std::string_view list) {
  while (!list.empty()) {
    const std::size_t end = std::min(list.find('|'), list.size());
    if (list.substr(0, end) == text) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

ApiStatus check_refused(const FieldValue& value, const RefusedField& field) {
  // Only short values are harmless: nothing large is spelled out to be compared.
  if (value.value.size() <= 1 && is_one_of(value.value.text(), field.harmless)) return {};
  return refuse(ErrorKind::kUnsupported, value.path, "not supported here");
}

// What spans several fields, and what is missing.
ApiStatus check_whole(RequestDraft& draft, const Members& members, RequestKind kind) {
  for (const RequestField& field : kFields)
    if ((field.required_in & kind) != 0 && find_member(members, field.name) == nullptr)
      return invalid(std::string(field.name), "missing from the request");
  if (draft.stream_options && !draft.stream) return invalid("stream_options", "expected only where stream is true");
  if (draft.top_logprobs > 0 && !draft.logprobs) return invalid("top_logprobs", "expected only where logprobs is true");
  SamplingFields& sampling = draft.sampling;
  if (draft.logprobs) sampling.logprobs = draft.top_logprobs;
  const bool newer = draft.max_completion_tokens.has_value();
  sampling.max_tokens = newer ? draft.max_completion_tokens : draft.max_tokens;
  if (sampling.max_tokens && sampling.min_tokens > *sampling.max_tokens)
    return invalid("min_tokens", "expected at most the {} of {}, got {}", *sampling.max_tokens,
                   newer ? "max_completion_tokens" : "max_tokens", sampling.min_tokens);
  if (draft.min_pixels && draft.max_pixels && *draft.min_pixels > *draft.max_pixels) {
    const bool plain = find_member(members, "min_pixels") != nullptr;
    return invalid(plain && kind != kChatRequest ? "min_pixels" : "mm_processor_kwargs.min_pixels",
                   "expected at most the {} of max_pixels, got {}", *draft.max_pixels, *draft.min_pixels);
  }
  return {};
}

}  // namespace

std::span<const RequestField> request_fields() { return kFields; }
std::span<const RefusedField> refused_fields() { return kRefused; }

double highest(const RequestField& field, const RequestLimits& limits) {
  return field.name == "n" ? static_cast<double>(limits.max_n) : field.high;
}

ApiResult<RequestDraft> read_request(std::string_view body, RequestKind kind, const RequestLimits& limits) {
  API_ASSIGN(const Json json, parse_body(body, limits.max_depth));
  API_ASSIGN(const Members members, (FieldValue{json.root(), {}}.members("an object")));
  RequestDraft draft(limits);
  for (const auto& [name, value] : members) {
    const auto is_it = [&, key = name](const auto& field) { return field.name == key && (field.in & kind) != 0; };
    if (const auto* field = std::find_if(kFields.begin(), kFields.end(), is_it); field != kFields.end()) {
      API_CHECK(field->read(value, *field, draft));
    } else if (const auto* refused = std::find_if(kRefused.begin(), kRefused.end(), is_it); refused != kRefused.end()) {
      API_CHECK(check_refused(value, *refused));
    }
  }
  API_CHECK(check_whole(draft, members, kind));
  return draft;
}

}  // namespace chiasm
