#include "api/openapi.h"

#include <array>

#include <nlohmann/json.hpp>

#include "api/openapi_schemas.h"

namespace chiasm {
namespace {

using Object = nlohmann::ordered_json;

// Tags of a route: who has it.
constexpr std::uint8_t kLanguage = 1, kVision = 2, kAll = kLanguage | kVision;

struct OpenApiRoute {
  std::string_view method, path;
  std::uint8_t tags;
  std::string_view name;  // operationId
  std::string_view summary;
  std::string_view request;  // schema of a JSON body; "": no body. kPicture: see body_of
  std::string_view answer;   // schema of a JSON answer
  std::string_view also;     // what the answer may be instead, as a media type
  std::string_view errors;   // statuses that a client should expect beside those of every route
};

constexpr std::string_view kPicture = "picture";
constexpr std::string_view kEvents = "text/event-stream", kFile = "application/octet-stream", kText = "text/plain";

constexpr auto kRoutes = std::to_array<OpenApiRoute>({
    {"POST", "/v1/chat/completions", kLanguage, "createChatCompletion", "Answers a conversation with pictures.",
     "ChatRequest", "ChatCompletion", kEvents, "400 404 409 413 415 503 504"},
    {"POST", "/v1/ask", kLanguage, "ask", "Answers many questions on the same pictures in one batch.", "AskRequest",
     "AskResult", kEvents, "400 404 409 413 415 503 504"},
    {"POST", "/v1/images", kLanguage, "uploadImage", "Takes a picture ahead of its questions and gives its id.",
     "ImageUpload", "Image", "", "400 404 413 503 504"},
    {"GET", "/v1/images/{id}", kLanguage, "getImage", "Tells about a picture that is kept.", "", "Image", "",
     "400 404 503"},
    {"DELETE", "/v1/images/{id}", kLanguage, "deleteImage", "Forgets a picture.", "", "Deleted", "", "400 404 503"},
    {"GET", "/v1/models", kLanguage, "listModels", "The models that answer here.", "", "ModelList", "", ""},
    {"GET", "/v1/models/{id}", kLanguage, "getModel", "One model.", "", "Model", "", "404"},
    {"GET", "/v1/status", kLanguage, "getStatus", "Queue, caches and throughput.", "", "Status", "", ""},
    {"POST", "/v1/features", kVision, "encodeFeature", "Encodes a picture, or frames as parts of a form.", kPicture,
     "FeatureDescription", kFile, "400 413 503 504"},
    {"GET", "/v1/features/{id}", kVision, "getFeature", "A feature that is kept.", "", "FeatureDescription", kFile,
     "400 404"},
    {"HEAD", "/v1/features/{id}", kVision, "hasFeature", "Whether a feature is kept.", "", "", "", "400 404"},
    {"DELETE", "/v1/features/{id}", kVision, "deleteFeature", "Forgets a feature.", "", "Deleted", "", "400 404"},
    {"GET", "/v1/info", kVision, "getInfo", "Model, digests and limits.", "", "VisionInfo", "", ""},
    {"GET", "/health/live", kAll, "isLive", "Whether the process answers.", "", "Health", "", ""},
    {"GET", "/health/ready", kAll, "isReady", "Whether it takes work.", "", "Health", "", "503"},
    {"GET", "/version", kAll, "getVersion", "The program's version.", "", "Version", "", ""},
    {"GET", "/metrics", kAll, "getMetrics", "Prometheus metrics.", "", "", kText, ""},
    {"GET", "/openapi.json", kAll, "getOpenApi", "This document.", "", "", "application/json", ""},
});

constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kErrors = {{
    {"400", "The request is wrong, or asks for what is not supported: `param` names the field."},
    {"401", "The API key is missing or wrong."},
    {"404", "There is nothing of this name."},
    {"405", "The path does not take this method."},
    {"409", "Features of another vision encoder: both digests are named."},
    {"413", "The request is too large."},
    {"415", "The body is not JSON by its Content-Type."},
    {"429", "Too many requests of this client at once: see Retry-After."},
    {"500", "The server failed."},
    {"503", "Full, or no vision encoder answers: see Retry-After."},
    {"504", "The request's time is over."},
}};

Object json_content(std::string_view schema) {
  return {{"application/json", {{"schema", {{"$ref", "#/components/schemas/" + std::string(schema)}}}}}};
}

Object error_of(std::string_view status, std::string_view text) {
  Object out{{"description", text}, {"content", json_content("Error")}};
  if (status == "429" || status == "503")
    out["headers"]["Retry-After"] = {{"description", "Seconds."}, {"schema", {{"type", "integer"}}}};
  return out;
}

Object body_of(const OpenApiRoute& route) {
  const Object file{{"schema", {{"type", "string"}, {"format", "binary"}}}};
  const auto form = [](std::string_view name) -> Object {
    return {{"schema", {{"type", "object"}, {"properties", {{name, {{"type", "string"}, {"format", "binary"}}}}}}}};
  };
  Object content = Object::object();
  if (route.request != kPicture) content = json_content(route.request);
  if (route.request == kPicture || route.request == "ImageUpload") {
    content["image/*"] = file;
    content["application/octet-stream"] = file;
    content["multipart/form-data"] = form(route.request == kPicture ? "frame" : "image");
  }
  return {{"required", true}, {"content", std::move(content)}};
}

Object parameters_of(const OpenApiRoute& route) {
  Object out = Object::array();
  if (route.path.find("{id}") != std::string_view::npos) {
    Object schema{{"type", "string"}};
    if (!route.path.starts_with("/v1/models/")) schema["pattern"] = "^[0-9a-f]{64}$";
    out.push_back({{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", std::move(schema)}});
  }
  if (route.request == kPicture || route.request == "ImageUpload")
    for (const char* name : {"min_pixels", "max_pixels"})
      out.push_back({{"name", name}, {"in", "query"}, {"schema", {{"type", "integer"}, {"minimum", 1}}}});
  return out;
}

Object good_answer(const OpenApiRoute& route) {
  Object out{{"description", "Done."}};
  if (!route.answer.empty()) out["content"] = json_content(route.answer);
  if (route.also == kEvents) {
    const std::string_view event = route.request == "AskRequest" ? "AskEvent" : "ChatCompletionChunk";
    out["content"][kEvents] = {{"schema", {{"type", "string"}}}};
    out["description"] = "Done. Where stream is true: events whose data is one " + std::string(event) +
                         " or Error each; [DONE] is the last.";
  } else if (route.also == kFile) {
    out["content"][kFile] = {{"schema", {{"type", "string"}, {"format", "binary"}}}};
    out["description"] = "The feature file, or its description where the client accepts JSON only.";
  } else if (!route.also.empty()) {
    out["content"][route.also] = {{"schema", {{"type", route.also == kText ? "string" : "object"}}}};
  }
  return out;
}

bool needs_key(const OpenApiRoute& route) { return !route.path.starts_with("/health/"); }

Object operation(const OpenApiRoute& route) {
  Object out{{"operationId", route.name}, {"summary", route.summary}, {"tags", Object::array()}};
  if ((route.tags & kLanguage) != 0) out["tags"].push_back("language");
  if ((route.tags & kVision) != 0) out["tags"].push_back("vision");
  if (Object parameters = parameters_of(route); !parameters.empty()) out["parameters"] = std::move(parameters);
  if (!route.request.empty()) out["requestBody"] = body_of(route);
  out["responses"]["200"] = good_answer(route);
  for (const auto& [status, text] : kErrors) {
    const bool common = (status == "401" && needs_key(route)) || status == "500";
    if (common || route.errors.find(status) != std::string_view::npos)
      out["responses"][std::string(status)] = error_of(status, text);
  }
  if (route.path == "/health/ready")
    out["responses"]["503"] = {{"description", "Not now."}, {"content", json_content("Health")}};
  if (!needs_key(route)) out["security"] = Object::array();
  return out;
}

std::string lower(std::string_view method) {
  std::string out(method);
  for (char& c : out) c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

std::string openapi_json(std::string_view version, const RequestLimits& limits) {
  Object out{{"openapi", "3.1.0"},
             {"info",
              {{"title", "chiasm"},
               {"version", version},
               {"description",
                "Questions about pictures. The routes of tag `language` are those of a language server "
                "and of the single process, those of tag `vision` a vision server's."},
               {"license", {{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}}}}};
  out["tags"] = {{{"name", "language"}, {"description", "Pictures and text in, text out."}},
                 {{"name", "vision"}, {"description", "Pictures in, features out."}}};
  out["security"] = Object::array({{{"key", Object::array()}}});
  out["paths"] = Object::object();
  for (const OpenApiRoute& route : kRoutes)
    out["paths"][std::string(route.path)][lower(route.method)] = operation(route);
  out["components"]["schemas"] = Object::parse(openapi_schemas(limits));
  out["components"]["securitySchemes"]["key"] = {{"type", "http"}, {"scheme", "bearer"}};
  return out.dump(-1, ' ', false, Object::error_handler_t::replace);
}

std::vector<std::pair<std::string, std::string>> openapi_routes(std::string_view tag) {
  const std::uint8_t wanted = tag == "language" ? kLanguage : tag == "vision" ? kVision : tag.empty() ? kAll : 0;
  std::vector<std::pair<std::string, std::string>> out;
  for (const OpenApiRoute& route : kRoutes)
    if ((route.tags & wanted) != 0) out.emplace_back(route.method, route.path);
  return out;
}

}  // namespace chiasm
