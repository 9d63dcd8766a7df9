#include "api/openapi.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include <gmock/gmock.h>

#include "api/chat_response.h"
#include "api/test_requests.h"
#include "api/test_schema.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using Value = SchemaChecker::Value;
using testing::IsSupersetOf;
using testing::StartsWith;

const Value& document() {
  static const Value parsed = Value::parse(openapi_json("1.2.3"));
  return parsed;
}
const Value& schema(const std::string& name) { return document()["components"]["schemas"].at(name); }
bool fits(const Value& value, const std::string& name) { return SchemaChecker(document()).fits(value, name); }

constexpr std::pair<RequestKind, const char*> kRequests[] = {
    {kChatRequest, "ChatRequest"}, {kAskRequest, "AskRequest"}, {kUploadRequest, "ImageUpload"}};

std::optional<ApiError> error_of(RequestKind kind, const std::string& body) {
  const auto read = read_request(body, kind, {});
  return read ? std::nullopt : std::optional(read.error());
}

TEST(OpenApi, EveryFieldThatIsReadIsDescribedAndTheOtherWayRound) {
  for (const auto& [kind, name] : kRequests) {
    std::set<std::string> read, described, read_required;
    for (const RequestField& field : request_fields()) {
      if ((field.in & kind) != 0) read.emplace(field.name);
      if ((field.required_in & kind) != 0) read_required.emplace(field.name);
    }
    for (const auto& [field, of] : schema(name)["properties"].items()) described.insert(field);
    EXPECT_EQ(read, described) << name;
    EXPECT_EQ(read_required, schema(name)["required"].get<std::set<std::string>>()) << name;
    // And by what the parser does, not by what its table says: a value that fits no field is an error of that field.
    for (const std::string& field : described) {
      const auto error = error_of(kind, body_with(kind, field, R"({"type":7,"a":{"b":[{}]}})"));
      const bool takes_any_object = field == "stream_options" || field == "chat_template_kwargs";
      const auto other = takes_any_object ? error_of(kind, body_with(kind, field, "7")) : error;
      ASSERT_TRUE(other) << name << " does not read " << field;
      EXPECT_THAT(other->param, StartsWith(field));
    }
  }
}

TEST(OpenApi, RangesAreThoseOfTheParser) {
  int checked = 0;
  for (const auto& [kind, name] : kRequests) {
    for (const auto& [field, of] : schema(name)["properties"].items()) {
      const bool whole = of.contains("type") && of["type"].is_array() && of["type"][0] == "integer";
      const double step = whole ? 1 : 0.001;
      const auto accepted = [&, key = field](const Value& low, double offset) {
        const Value value = offset == 0 ? low
                            : whole     ? Value(low.is_number_unsigned() && low.get<std::uint64_t>() > (1ULL << 62)
                                                    ? Value("beyond 64 bits")
                                                    : Value(low.get<std::int64_t>() + static_cast<std::int64_t>(offset)))
                                        : Value(low.get<double>() + offset);
        const auto error = error_of(kind, body_with(kind, key, value.dump()));
        if (error && error->message.find("expected only where") != std::string::npos) return true;  // top_logprobs
        return !error;
      };
      if (of.contains("minimum") && of["minimum"] != std::numeric_limits<std::int64_t>::min()) {
        EXPECT_TRUE(accepted(of["minimum"], 0)) << name << ' ' << field;
        EXPECT_FALSE(accepted(of["minimum"], -step)) << name << ' ' << field;
        ++checked;
      }
      if (of.contains("exclusiveMinimum")) {
        EXPECT_FALSE(accepted(of["exclusiveMinimum"], 0)) << name << ' ' << field;
        EXPECT_TRUE(accepted(of["exclusiveMinimum"], step)) << name << ' ' << field;
        ++checked;
      }
      if (of.contains("maximum")) {
        EXPECT_TRUE(accepted(of["maximum"], 0)) << name << ' ' << field;
        EXPECT_FALSE(accepted(of["maximum"], step)) << name << ' ' << field;
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 40);
}

TEST(OpenApi, LimitsOfTheServerAreInIt) {
  const Value custom =
      Value::parse(openapi_json("1", {.max_images = 3, .max_messages = 5, .max_questions = 7, .max_n = 2}));
  const Value& chat = custom["components"]["schemas"]["ChatRequest"]["properties"];
  const Value& ask = custom["components"]["schemas"]["AskRequest"]["properties"];
  EXPECT_EQ(chat["n"]["maximum"], 2);
  EXPECT_EQ(chat["messages"]["maxItems"], 5);
  EXPECT_EQ(ask["images"]["maxItems"], 3);
  EXPECT_EQ(ask["questions"]["maxItems"], 7);
  EXPECT_EQ(custom["info"]["version"], "1");
}

TEST(OpenApi, WhatTheParserTakesFitsTheSchemaAndWhatItRefusesDoesNot) {
  for (const FieldCase& one : chat_field_cases()) {
    const std::string body = chat_with(one.name, one.value);
    EXPECT_EQ(fits(Value::parse(body), "ChatRequest"), one.error.empty() || one.beyond_schema) << body;
  }
}

TEST(OpenApi, PartsOfEveryForm) {
  const std::string id(64, 'a'), data = R"("data:image/png;base64,AAEC")";
  const std::string good[] = {
      R"("hi")",
      R"([{"type":"text","text":""}])",
      R"([{"type":"refusal","refusal":"no"}])",
      R"([{"type":"image_url","image_url":)" + data + "}]",
      R"([{"type":"image_url","image_url":{"url":)" + data + R"(,"detail":"low"}}])",
      R"([{"image_url":{"url":"https://h/x","detail":null}}])",
      R"([{"type":"image_id","image_id":")" + id + "\"}]",
      R"([{"image_id":{"id":")" + id + "\"}}]",
      R"([{"type":"image_features","image_features":"AAEC"}])",
      R"([{"type":"image_embeds","image_embeds":{"image_embeds":"AAEC","image_grid_thw":"AA=="}}])",
      R"([{"type":"video","video":[)" + data + R"(,{"url":"http://h/f"},{"type":"image_url","image_url":)" + data +
          "}]}]",
      R"([{"type":"video","video":{"image_id":")" + id + "\"}}]",
      R"([{"video":{"type":"image_features","image_features":"AAEC"}}])",
  };
  const std::string bad[] = {
      "7",
      "[]",
      "[7]",
      "[{}]",
      R"([{"type":"text"}])",
      R"([{"type":"txt","text":"a"}])",
      R"([{"type":"text","text":7}])",
      R"([{"type":"image_url","image_url":{}}])",
      R"([{"type":"image_url","image_url":"ftp://h"}])",
      R"([{"type":"image_url","image_url":{"url":)" + data + R"(,"detail":"medium"}}])",
      R"([{"type":"image_id","image_id":"abc"}])",
      R"([{"type":"image_id","image_id":{}}])",
      R"([{"type":"image_features","image_features":""}])",
      R"([{"type":"image_features","image_features":"?"}])",
      R"([{"type":"image_embeds","image_embeds":"AAEC"}])",
      R"([{"type":"image_embeds","image_embeds":{"image_embeds":"AA=="}}])",
      R"([{"type":"video","video":[]}])",
      R"([{"type":"video","video":"http://h/v.mp4"}])",
      R"([{"type":"video","video":[{"image_id":")" + id + "\"}]}]",
  };
  const auto body = [](const std::string& content) {
    return chat_with("messages", R"([{"role":"user","content":)" + content + "}]");
  };
  for (const std::string& content : good) {
    EXPECT_FALSE(error_of(kChatRequest, body(content))) << content;
    EXPECT_TRUE(fits(Value::parse(body(content)), "ChatRequest")) << content;
  }
  for (const std::string& content : bad) {
    EXPECT_TRUE(error_of(kChatRequest, body(content))) << content;
    EXPECT_FALSE(fits(Value::parse(body(content)), "ChatRequest")) << content;
  }
  for (const char* messages : {R"([{"role":"assistant"}])", R"([{"role":"assistant","content":null}])"}) {
    EXPECT_FALSE(error_of(kChatRequest, chat_with("messages", messages)));
    EXPECT_TRUE(fits(Value::parse(chat_with("messages", messages)), "ChatRequest"));
  }
  for (const char* messages : {R"([{"role":"user"}])", R"([{"role":"tool","content":"x"}])", "[]", "{}"}) {
    EXPECT_TRUE(error_of(kChatRequest, chat_with("messages", messages)));
    EXPECT_FALSE(fits(Value::parse(chat_with("messages", messages)), "ChatRequest"));
  }
  // The same pictures, as /v1/ask and /v1/images take them.
  for (const std::string& picture : {data, R"({"url":)" + data + "}", R"({"image_id":")" + id + "\"}"}) {
    const std::string ask = body_with(kAskRequest, "images", "[" + picture + "]");
    EXPECT_FALSE(error_of(kAskRequest, ask)) << ask;
    EXPECT_TRUE(fits(Value::parse(ask), "AskRequest")) << ask;
    const std::string upload = body_with(kUploadRequest, "image", picture);
    EXPECT_FALSE(error_of(kUploadRequest, upload)) << upload;
    EXPECT_TRUE(fits(Value::parse(upload), "ImageUpload")) << upload;
  }
  EXPECT_FALSE(fits(Value::parse(body_with(kAskRequest, "images", "[]")), "AskRequest"));
  EXPECT_FALSE(fits(Value::parse(body_with(kUploadRequest, "image", "[]")), "ImageUpload"));
}

TEST(OpenApi, AnswersFitTheirSchemas) {
  const AnswerHead head{"id", 5, "m"};
  const AnswerUsage usage{1, 2, 1};
  const std::vector<VisionUse> vision = {{"ab", 3, "disk", 0.5}};
  const std::vector<TokenLogprobs> tokens = {{{"a", -1}, {{"a", -1}}}};
  AskAnswer answer{0, "q", "a", "stop", usage, {}, tokens, {}};
  AskAnswer failed;
  failed.error = ApiError{ErrorKind::kDeadline, "late", {}};
  const std::pair<std::string, std::string> answers[] = {
      {chat_completion_json(head, {{0, "x", "stop", tokens}, {1, "y", "length", {}}}, usage, vision, {}),
       "ChatCompletion"},
      {role_chunk_json(head, 0, true), "ChatCompletionChunk"},
      {text_chunk_json(head, 0, "x", &tokens, false), "ChatCompletionChunk"},
      {finish_chunk_json(head, 0, "length", true), "ChatCompletionChunk"},
      {usage_chunk_json(head, usage, vision, {}), "ChatCompletionChunk"},
      {ask_result_json(head, {answer, failed}, usage, vision), "AskResult"},
      {ask_vision_json(head, vision), "AskEvent"},
      {ask_delta_json(head, 0, "x"), "AskEvent"},
      {ask_answer_json(head, answer), "AskEvent"},
      {ask_answer_json(head, failed), "AskEvent"},
      {ask_done_json(head, usage), "AskEvent"},
      {model_json({"m", 1, 2}), "Model"},
      {model_list_json({{"m", 1, 2}}), "ModelList"},
      {image_json({"ab", {1, 2, 2}, 1, "encoded", 1}), "Image"},
      {deleted_json("ab", "image"), "Deleted"},
      {error_json({ErrorKind::kInternal, "m", {}}), "Error"},
      {error_json({ErrorKind::kUnsupported, "m", "p"}), "Error"}};
  for (const auto& [json, name] : answers) {
    EXPECT_TRUE(fits(Value::parse(json), name)) << name << ": " << json;
    EXPECT_FALSE(fits(Value::object(), name)) << name;
  }
}

TEST(OpenApi, RoutesAreThoseOfTheDocument) {
  std::set<std::pair<std::string, std::string>> documented;
  std::set<std::string> names;
  for (const auto& [path, operations] : document()["paths"].items())
    for (const auto& [method, operation] : operations.items()) {
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
      documented.emplace(upper, path);
      EXPECT_TRUE(names.insert(operation["operationId"]).second) << operation["operationId"];
      EXPECT_EQ(path.find("{id}") != std::string::npos,
                operation.contains("parameters") && operation["parameters"][0]["name"] == "id")
          << path;
    }
  const auto set_of = [](std::string_view tag) {
    const auto list = openapi_routes(tag);
    std::set<std::pair<std::string, std::string>> out(list.begin(), list.end());
    EXPECT_EQ(out.size(), list.size()) << "each once";
    return out;
  };
  EXPECT_EQ(set_of(""), documented);
  EXPECT_THAT(set_of("language"),
              IsSupersetOf(std::set<std::pair<std::string, std::string>>{{"POST", "/v1/chat/completions"},
                                                                         {"POST", "/v1/ask"},
                                                                         {"POST", "/v1/images"},
                                                                         {"GET", "/v1/images/{id}"},
                                                                         {"DELETE", "/v1/images/{id}"},
                                                                         {"GET", "/v1/models"},
                                                                         {"GET", "/v1/models/{id}"},
                                                                         {"GET", "/v1/status"},
                                                                         {"GET", "/health/live"},
                                                                         {"GET", "/health/ready"},
                                                                         {"GET", "/version"},
                                                                         {"GET", "/metrics"},
                                                                         {"GET", "/openapi.json"}}));
  EXPECT_THAT(set_of("vision"),
              IsSupersetOf(std::set<std::pair<std::string, std::string>>{{"POST", "/v1/features"},
                                                                         {"GET", "/v1/features/{id}"},
                                                                         {"HEAD", "/v1/features/{id}"},
                                                                         {"DELETE", "/v1/features/{id}"},
                                                                         {"GET", "/v1/info"},
                                                                         {"GET", "/health/live"}}));
  EXPECT_FALSE(set_of("vision").contains({"POST", "/v1/ask"}));
  EXPECT_FALSE(set_of("language").contains({"GET", "/v1/info"}));
  EXPECT_TRUE(openapi_routes("other").empty());
}

// Nothing in the document points nowhere.
TEST(OpenApi, EveryReferenceIsThere) {
  int seen = 0;
  const std::function<void(const Value&)> walk = [&](const Value& value) {
    if (value.is_object() && value.contains("$ref") && value["$ref"].is_string()) {
      ++seen;
      EXPECT_TRUE(document().contains(Value::json_pointer(value["$ref"].get<std::string>().substr(1))))
          << value["$ref"];
    }
    if (!value.is_structured()) return;  // a plain value would walk over itself
    for (const Value& one : value) walk(one);
  };
  walk(document());
  EXPECT_GT(seen, 50);
  EXPECT_EQ(document()["openapi"], "3.1.0");
}

}  // namespace
}  // namespace chiasm
