#include "api/sampling_fields.h"

#include <charconv>
#include <limits>

#include "api/image_input.h"

namespace chiasm {
namespace {

constexpr std::int32_t kMaxTokenId = std::numeric_limits<std::int32_t>::max();

ApiResult<std::string> stop_text(const FieldValue& field) {
  API_ASSIGN(const std::string_view text, field.text());
  if (text.size() > kLongestStop)
    return invalid(field.path, "expected at most {} bytes, got {}", kLongestStop, text.size());
  return std::string(text);
}

ApiStatus read_schema(const FieldValue& field, RequestDraft& draft) {
  API_ASSIGN(const Members members, field.members("an object with name and schema"));
  if (const FieldValue* name = find_member(members, "name"); name != nullptr) API_CHECK(name->text());
  if (const FieldValue* strict = find_member(members, "strict"); strict != nullptr) API_CHECK(strict->boolean());
  const FieldValue* schema = find_member(members, "schema");
  if (schema == nullptr) return invalid(field.path + ".schema", "missing, expected a JSON schema");
  if (!schema->value.is_object()) return expected(*schema, "a JSON schema as an object");
  std::string text = schema->value.text();
  if (text.size() > draft.limits.max_schema)
    return refuse(ErrorKind::kTooLarge, schema->path,
                  fmt::format("expected a schema of at most {} bytes, got {}", draft.limits.max_schema, text.size()));
  draft.sampling.format = {ResponseFormat::Kind::kJsonSchema, std::move(text)};
  return {};
}

}  // namespace

ApiStatus read_logit_bias(const FieldValue& field, RequestDraft& draft) {
  API_ASSIGN(const Members members, field.members("an object from token ids to numbers"));
  for (const auto& [name, value] : members) {
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    const bool plain = error == std::errc() && end == name.data() + name.size() && id >= 0 &&
                       (name == "0" || name.front() != '0') && name.front() != '-';
    if (!plain) return invalid(value.path, "expected a token id from 0 to {} as the key", kMaxTokenId);
    API_ASSIGN(draft.sampling.logit_bias[id], value.number(-kMaxBias, kMaxBias));
  }
  return {};
}

ApiStatus read_seed(const FieldValue& field, RequestDraft& draft) {
  if (const auto large = field.value.unsigned_integer()) {
    draft.sampling.seed = *large;
    return {};
  }
  const auto seed = field.integer(std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max());
  if (!seed) return expected(field, "an integer of 64 bits");
  draft.sampling.seed = static_cast<std::uint64_t>(*seed);
  return {};
}

ApiStatus read_stop(const FieldValue& field, RequestDraft& draft) {
  if (field.value.is_string()) {
    API_ASSIGN(std::string text, stop_text(field));
    draft.sampling.stop = {std::move(text)};
    return {};
  }
  API_ASSIGN(const auto texts, field.elements(kMaxStops, "a string or a list of strings"));
  for (const FieldValue& one : texts) {
    API_ASSIGN(std::string text, stop_text(one));
    draft.sampling.stop.push_back(std::move(text));
  }
  return {};
}

ApiStatus read_stop_token_ids(const FieldValue& field, RequestDraft& draft) {
  API_ASSIGN(const auto ids, field.elements(kMaxStopTokens, "a list of token ids"));
  for (const FieldValue& one : ids) {
    API_ASSIGN(const std::int64_t id, one.integer(0, kMaxTokenId));
    draft.sampling.stop_token_ids.push_back(id);
  }
  return {};
}

ApiStatus read_logprobs(const FieldValue& field, RequestDraft& draft) {
  if (field.value.is_number())
    return refuse(ErrorKind::kUnsupported, field.path,
                  "expected true or false; how many tokens to tell is top_logprobs");
  API_ASSIGN(draft.logprobs, field.boolean());
  return {};
}

ApiStatus read_response_format(const FieldValue& field, RequestDraft& draft) {
  constexpr std::string_view kTypes = "one of text, json_object, json_schema";
  API_ASSIGN(const Members members, field.members("an object with a type"));
  const FieldValue* type = find_member(members, "type");
  if (type == nullptr) return invalid(field.path + ".type", "missing, expected {}", kTypes);
  API_ASSIGN(const std::string_view name, type->string());
  if (name == "text") return {};
  if (name == "json_object") {
    draft.sampling.format.kind = ResponseFormat::Kind::kJsonObject;
    return {};
  }
  if (name == "structural_tag" || name == "grammar" || name == "regex")
    return refuse(ErrorKind::kUnsupported, type->path, fmt::format("not supported here: expected {}", kTypes));
  if (name != "json_schema") return expected(*type, kTypes);
  const FieldValue* schema = find_member(members, "json_schema");
  if (schema == nullptr) return invalid(field.path + ".json_schema", "missing, expected an object with a schema");
  return read_schema(*schema, draft);
}

}  // namespace chiasm
