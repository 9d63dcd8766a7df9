#include "api/openapi_schemas.h"

#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/request_fields.h"
#include "api/sampling_fields.h"

namespace chiasm {
namespace {

using Object = nlohmann::ordered_json;

// What no limit or range of a table decides. An absent "type" of a part follows from the member that is there.
constexpr const char* kParts = R"json({
"Base64": {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9+/_\\s-]+={0,2}\\s*$"},
"PictureSource": {"type": "string", "pattern": "^([dD][aA][tT][aA]:[^,]*;[bB][aA][sS][eE]64,.+|[hH][tT][tT][pP][sS]?://.+)$",
  "description": "data:image/png;base64,... of any picture type, or an http or https URL where the server takes them."},
"ImageUrl": {"type": "object", "required": ["url"], "properties": {
  "url": {"$ref": "#/components/schemas/PictureSource"},
  "detail": {"enum": ["auto", "low", "high", null]}}},
"ImageId": {"description": "What POST /v1/images gave.", "anyOf": [
  {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
  {"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}}}]},
"ImageEmbeds": {"type": "object", "required": ["image_embeds", "image_grid_thw"], "description": "Base64 of .npy files.",
  "properties": {
    "image_embeds": {"$ref": "#/components/schemas/Base64"},
    "image_grid_thw": {"$ref": "#/components/schemas/Base64"}}},
"TextPart": {"type": "object", "required": ["text"], "properties": {
  "type": {"const": "text"}, "text": {"type": "string"}}},
"RefusalPart": {"type": "object", "required": ["refusal"], "properties": {
  "type": {"const": "refusal"}, "refusal": {"type": "string"}}},
"ImageUrlPart": {"type": "object", "required": ["image_url"], "properties": {
  "type": {"const": "image_url"},
  "image_url": {"anyOf": [{"$ref": "#/components/schemas/PictureSource"}, {"$ref": "#/components/schemas/ImageUrl"}]}}},
"ImageIdPart": {"type": "object", "required": ["image_id"], "properties": {
  "type": {"const": "image_id"}, "image_id": {"$ref": "#/components/schemas/ImageId"}}},
"ImageFeaturesPart": {"type": "object", "required": ["image_features"], "properties": {
  "type": {"const": "image_features"},
  "image_features": {"$ref": "#/components/schemas/Base64", "description": "A feature file."}}},
"ImageEmbedsPart": {"type": "object", "required": ["image_embeds"], "properties": {
  "type": {"const": "image_embeds"}, "image_embeds": {"$ref": "#/components/schemas/ImageEmbeds"}}},
"Picture": {"anyOf": [
  {"$ref": "#/components/schemas/PictureSource"}, {"$ref": "#/components/schemas/ImageUrl"},
  {"$ref": "#/components/schemas/ImageUrlPart"}, {"$ref": "#/components/schemas/ImageIdPart"},
  {"$ref": "#/components/schemas/ImageFeaturesPart"}, {"$ref": "#/components/schemas/ImageEmbedsPart"}]},
"ContentPart": {"anyOf": [
  {"$ref": "#/components/schemas/TextPart"}, {"$ref": "#/components/schemas/ImageUrlPart"},
  {"$ref": "#/components/schemas/ImageIdPart"}, {"$ref": "#/components/schemas/ImageFeaturesPart"},
  {"$ref": "#/components/schemas/ImageEmbedsPart"}, {"$ref": "#/components/schemas/VideoPart"},
  {"$ref": "#/components/schemas/RefusalPart"}]},
"Message": {"anyOf": [
  {"type": "object", "required": ["role", "content"], "properties": {
    "role": {"enum": ["system", "developer", "user"]},
    "content": {"$ref": "#/components/schemas/Content"}}},
  {"type": "object", "required": ["role"], "properties": {
    "role": {"const": "assistant"},
    "content": {"anyOf": [{"$ref": "#/components/schemas/Content"}, {"type": "null"}]}}}]}
})json";

constexpr const char* kAnswers = R"json({
"Error": {"type": "object", "required": ["error"], "properties": {"error": {"$ref": "#/components/schemas/ErrorObject"}}},
"ErrorObject": {"type": "object", "required": ["message", "type", "param", "code"], "properties": {
  "message": {"type": "string"}, "type": {"type": "string"},
  "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}},
"Usage": {"type": "object",
  "required": ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"], "properties": {
  "prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
  "prompt_tokens_details": {"type": "object", "required": ["cached_tokens"], "properties": {
    "cached_tokens": {"type": "integer", "description": "Tokens that the prefix cache had."}}}}},
"VisionUse": {"type": "object", "required": ["feature_id", "tokens", "source", "ms"], "properties": {
  "feature_id": {"type": "string"}, "tokens": {"type": "integer"}, "ms": {"type": "number"},
  "source": {"type": "string", "description": "memory, disk, encoded, vision_server, joined (another request had it encoded at that moment) or request."}}},
"Vision": {"type": "array", "items": {"$ref": "#/components/schemas/VisionUse"}},
"Timing": {"type": "object", "required": ["queue_ms", "vision_ms", "prefill_ms", "decode_ms"], "properties": {
  "queue_ms": {"type": "number"}, "vision_ms": {"type": "number"}, "prefill_ms": {"type": "number"},
  "decode_ms": {"type": "number"}}},
"TokenLogprob": {"type": "object", "required": ["token", "logprob", "bytes"], "properties": {
  "token": {"type": "string"}, "logprob": {"type": "number"}, "bytes": {"type": "array", "items": {"type": "integer"}},
  "top_logprobs": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}},
"Logprobs": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["content", "refusal"], "properties": {
  "content": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}, "refusal": {"type": "null"}}}]},
"ChatCompletion": {"type": "object",
  "required": ["id", "object", "created", "model", "choices", "usage", "vision", "timing"], "properties": {
  "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"},
  "model": {"type": "string"},
  "choices": {"type": "array", "items": {"type": "object",
    "required": ["index", "message", "logprobs", "finish_reason"], "properties": {
    "index": {"type": "integer"}, "finish_reason": {"enum": ["stop", "length"]},
    "logprobs": {"$ref": "#/components/schemas/Logprobs"},
    "message": {"type": "object", "required": ["role", "content", "refusal"], "properties": {
      "role": {"const": "assistant"}, "content": {"type": "string"}, "refusal": {"type": "null"}}}}}},
  "usage": {"$ref": "#/components/schemas/Usage"}, "vision": {"$ref": "#/components/schemas/Vision"},
  "timing": {"$ref": "#/components/schemas/Timing"}}},
"ChatCompletionChunk": {"type": "object", "required": ["id", "object", "created", "model", "choices"], "properties": {
  "id": {"type": "string"}, "object": {"const": "chat.completion.chunk"}, "created": {"type": "integer"},
  "model": {"type": "string"},
  "choices": {"type": "array", "items": {"type": "object",
    "required": ["index", "delta", "logprobs", "finish_reason"], "properties": {
    "index": {"type": "integer"}, "finish_reason": {"enum": ["stop", "length", null]},
    "logprobs": {"$ref": "#/components/schemas/Logprobs"},
    "delta": {"type": "object", "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}}}}}},
  "usage": {"anyOf": [{"$ref": "#/components/schemas/Usage"}, {"type": "null"}]},
  "vision": {"$ref": "#/components/schemas/Vision"}, "timing": {"$ref": "#/components/schemas/Timing"}}},
"AskAnswer": {"type": "object",
  "required": ["index", "question", "answer", "finish_reason", "logprobs", "usage", "timing", "error"], "properties": {
  "index": {"type": "integer"}, "question": {"type": "string"}, "answer": {"type": ["string", "null"]},
  "finish_reason": {"enum": ["stop", "length", null]}, "logprobs": {"$ref": "#/components/schemas/Logprobs"},
  "usage": {"$ref": "#/components/schemas/Usage"}, "timing": {"$ref": "#/components/schemas/Timing"},
  "error": {"anyOf": [{"$ref": "#/components/schemas/ErrorObject"}, {"type": "null"}]}}},
"AskResult": {"type": "object", "required": ["id", "object", "created", "model", "answers", "usage", "vision"],
  "properties": {
  "id": {"type": "string"}, "object": {"const": "ask.result"}, "created": {"type": "integer"},
  "model": {"type": "string"}, "answers": {"type": "array", "items": {"$ref": "#/components/schemas/AskAnswer"}},
  "usage": {"$ref": "#/components/schemas/Usage"}, "vision": {"$ref": "#/components/schemas/Vision"}}},
"AskEvent": {"description": "ask.vision first, ask.done last.", "anyOf": [
  {"type": "object", "required": ["object", "id", "created", "model", "vision"], "properties": {
    "object": {"const": "ask.vision"}, "id": {"type": "string"}, "created": {"type": "integer"},
    "model": {"type": "string"}, "vision": {"$ref": "#/components/schemas/Vision"}}},
  {"type": "object", "required": ["object", "id", "index", "text"], "properties": {
    "object": {"const": "ask.delta"}, "id": {"type": "string"}, "index": {"type": "integer"},
    "text": {"type": "string"}}},
  {"type": "object", "required": ["object", "id", "index", "question", "answer", "finish_reason"], "properties": {
    "object": {"const": "ask.answer"}, "id": {"type": "string"}, "index": {"type": "integer"},
    "question": {"type": "string"}, "answer": {"type": ["string", "null"]},
    "finish_reason": {"enum": ["stop", "length", null]}, "logprobs": {"$ref": "#/components/schemas/Logprobs"},
    "usage": {"$ref": "#/components/schemas/Usage"}, "timing": {"$ref": "#/components/schemas/Timing"},
    "error": {"anyOf": [{"$ref": "#/components/schemas/ErrorObject"}, {"type": "null"}]}}},
  {"type": "object", "required": ["object", "id", "usage"], "properties": {
    "object": {"const": "ask.done"}, "id": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"}}}]},
"Model": {"type": "object", "required": ["id", "object", "created", "owned_by", "max_model_len"], "properties": {
  "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
  "owned_by": {"type": "string"}, "max_model_len": {"type": "integer"}}},
"ModelList": {"type": "object", "required": ["object", "data"], "properties": {
  "object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}},
"Image": {"type": "object", "required": ["id", "object", "grid_thw", "tokens", "source", "ms"], "properties": {
  "id": {"type": "string"}, "object": {"const": "image"},
  "grid_thw": {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3},
  "tokens": {"type": "integer"}, "source": {"type": "string"}, "ms": {"type": "number"}}},
"Deleted": {"type": "object", "required": ["id", "object", "deleted"], "properties": {
  "id": {"type": "string"}, "object": {"type": "string"}, "deleted": {"const": true}}},
"Status": {"type": "object", "required": ["object"], "properties": {"object": {"const": "status"}},
  "description": "Queue, caches and throughput at this moment."},
"Health": {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}},
"Version": {"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}},
"FeatureDescription": {"type": "object", "description": "A feature without its rows."},
"VisionInfo": {"type": "object",
  "required": ["object", "model", "version", "vision_digest", "preprocess_digest", "hidden_size", "preprocessor", "limits"],
  "properties": {
  "object": {"const": "vision.info"}, "model": {"type": "string"}, "version": {"type": "string"},
  "vision_digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
  "preprocess_digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
  "hidden_size": {"type": "integer"}, "preprocessor": {"type": "object"}, "limits": {"type": "object"}}}
})json";

Object reference(std::string_view name) { return {{"$ref", "#/components/schemas/" + std::string(name)}}; }

Object list_of(Object items, std::size_t least, std::size_t most) {
  return {{"type", "array"}, {"items", std::move(items)}, {"minItems", least}, {"maxItems", most}};
}

// null is the same as absent.
Object or_null(Object schema) {
  if (schema.contains("type")) {
    schema["type"] = Object::array({schema["type"], "null"});
    return schema;
  }
  return {{"anyOf", Object::array({std::move(schema), {{"type", "null"}}})}};
}

// Whole numbers without ".0".
Object bound(double value) {
  return value == std::floor(value) ? Object(static_cast<std::int64_t>(value)) : Object(value);
}

Object range_of(const RequestField& field, const RequestLimits& limits) {
  Object out{{"type", field.type == RequestField::Type::kInteger ? "integer" : "number"}};
  out[field.above_low ? "exclusiveMinimum" : "minimum"] = bound(field.low);
  out["maximum"] = bound(highest(field, limits));
  return out;
}

Object pixels() {
  for (const RequestField& field : request_fields())
    if (field.name == "min_pixels") return or_null(range_of(field, {}));
  return {};
}

Object structured(std::string_view name, const RequestLimits& limits) {
  const Object stop_text{{"type", "string"}, {"minLength", 1}};
  const Object token{{"type", "integer"}, {"minimum", 0}, {"maximum", 2147483647}};
  if (name == "messages") return list_of(reference("Message"), 1, limits.max_messages);
  if (name == "images")
    return list_of({{"anyOf", Object::array({reference("Picture"), reference("VideoPart")})}}, 1, limits.max_images);
  if (name == "questions") return list_of({{"type", "string"}, {"minLength", 1}}, 1, limits.max_questions);
  if (name == "image") return reference("Picture");
  if (name == "mm_processor_kwargs")
    return {{"type", "object"},
            {"properties", {{"min_pixels", pixels()}, {"max_pixels", pixels()}}},
            {"additionalProperties", {{"type", "null"}}}};
  if (name == "stream_options")
    return {{"type", "object"}, {"properties", {{"include_usage", {{"type", Object::array({"boolean", "null"})}}}}}};
  if (name == "logit_bias")
    return {
        {"type", "object"},
        {"propertyNames", {{"pattern", "^(0|[1-9][0-9]{0,9})$"}}},
        {"additionalProperties",
         {{"type", Object::array({"number", "null"})}, {"minimum", bound(-kMaxBias)}, {"maximum", bound(kMaxBias)}}}};
  if (name == "seed")
    return {{"type", "integer"},
            {"minimum", std::numeric_limits<std::int64_t>::min()},
            {"maximum", std::numeric_limits<std::uint64_t>::max()}};
  if (name == "stop") return {{"anyOf", Object::array({stop_text, list_of(stop_text, 0, kMaxStops)})}};
  if (name == "stop_token_ids") return list_of(token, 0, kMaxStopTokens);
  if (name == "response_format") return reference("ResponseFormat");
  if (name == "chat_template_kwargs") return {{"type", "object"}};
  return {};  // openapi_test finds a structured field without a schema
}

Object schema_of(const RequestField& field, const RequestLimits& limits) {
  switch (field.type) {
    case RequestField::Type::kString:
      return field.name == "model" ? Object{{"type", "string"}, {"minLength", 1}} : Object{{"type", "string"}};
    case RequestField::Type::kBool: return {{"type", "boolean"}};
    case RequestField::Type::kInteger:
    case RequestField::Type::kNumber: return range_of(field, limits);
    case RequestField::Type::kStructured: break;
  }
  return structured(field.name, limits);
}

Object request_schema(RequestKind kind, const RequestLimits& limits) {
  Object properties = Object::object(), required = Object::array();
  for (const RequestField& field : request_fields()) {
    if ((field.in & kind) == 0) continue;
    const bool must = (field.required_in & kind) != 0;
    Object schema = schema_of(field, limits);
    if (!must) schema = or_null(std::move(schema));
    schema["description"] = field.about;
    properties[std::string(field.name)] = std::move(schema);
    if (must) required.push_back(field.name);
  }
  std::string refused;
  for (const RefusedField& field : refused_fields())
    if ((field.in & kind) != 0) refused.append(refused.empty() ? "" : ", ").append(field.name);
  Object out{{"type", "object"}, {"required", std::move(required)}, {"properties", std::move(properties)}};
  if (!refused.empty())
    out["description"] =
        "Other fields are ignored, but for these, which are refused where they would change the answer: " + refused +
        ".";
  return out;
}

Object response_format() {
  return Object::parse(R"json({"anyOf": [
    {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["text", "json_object"]}}},
    {"type": "object", "required": ["type", "json_schema"], "properties": {
      "type": {"const": "json_schema"},
      "json_schema": {"type": "object", "required": ["schema"], "properties": {
        "name": {"type": ["string", "null"], "minLength": 1},
        "strict": {"type": ["boolean", "null"]},
        "schema": {"type": "object", "description": "JSON Schema 2020-12; always followed strictly."}}}}}]})json");
}

Object video_part(const RequestLimits& limits) {
  const Object frame{
      {"anyOf", Object::array({reference("PictureSource"), reference("ImageUrl"), reference("ImageUrlPart")})}};
  const Object video{{"anyOf", Object::array({list_of(frame, 1, limits.max_images), reference("ImageIdPart"),
                                              reference("ImageFeaturesPart")})}};
  return {{"type", "object"},
          {"required", Object::array({"video"})},
          {"properties", {{"type", {{"const", "video"}}}, {"video", video}}}};
}

}  // namespace

std::string openapi_schemas(const RequestLimits& limits) {
  Object out = Object::object();
  out["ChatRequest"] = request_schema(kChatRequest, limits);
  out["AskRequest"] = request_schema(kAskRequest, limits);
  out["ImageUpload"] = request_schema(kUploadRequest, limits);
  out["ResponseFormat"] = response_format();
  out["Content"] = {
      {"anyOf", Object::array({Object{{"type", "string"}},
                               list_of(reference("ContentPart"), 1, limits.max_images + limits.max_messages)})}};
  out["VideoPart"] = video_part(limits);
  out.update(Object::parse(kParts));
  out.update(Object::parse(kAnswers));
  return out.dump();
}

}  // namespace chiasm
