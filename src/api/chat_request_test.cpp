#include "api/chat_request.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>

#include "api/test_requests.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::StartsWith;

ApiResult<ChatRequest> chat(std::string_view body) { return parse_chat_request(body, {}); }
ChatRequest good(std::string_view body) {
  auto out = chat(body);
  EXPECT_TRUE(out) << body.substr(0, 300) << ": " << (out ? "" : out.error().message);
  return out ? std::move(*out) : ChatRequest();
}
ApiError bad(std::string_view body) {
  auto out = chat(body);
  EXPECT_FALSE(out) << body.substr(0, 300);
  return out ? ApiError() : out.error();
}

// "name.more: text" and "name[1]: text" name the field "name".
std::string field_of(const std::string& param) { return param.substr(0, param.find_first_of(".[")); }

TEST(ChatRequest, EveryFieldGoodAndBad) {
  for (const FieldCase& one : chat_field_cases()) {
    const std::string body = chat_with(one.name, one.value);
    const auto parsed = chat(body);
    if (one.error.empty()) {
      EXPECT_TRUE(parsed) << body << ": " << (parsed ? "" : parsed.error().message);
      continue;
    }
    ASSERT_FALSE(parsed) << body;
    EXPECT_EQ(parsed.error().message, one.error);
    EXPECT_EQ(field_of(parsed.error().param), one.name);
    EXPECT_THAT(one.error, StartsWith(parsed.error().param + ": ")) << "param is what the message begins with";
    EXPECT_EQ(http_status(parsed.error().kind), 400);
  }
}

TEST(ChatRequest, EveryFieldIsTestedGoodAndBad) {
  std::set<std::string> tested_good = {"messages"}, tested_bad = {"messages"};
  for (const FieldCase& one : chat_field_cases()) (one.error.empty() ? tested_good : tested_bad).insert(one.name);
  tested_good.insert("stream_options");  // which is good beside stream only: see StreamOptions
  for (const RequestField& field : request_fields()) {
    if ((field.in & kChatRequest) == 0) continue;
    EXPECT_TRUE(tested_good.contains(std::string(field.name))) << field.name;
    EXPECT_TRUE(tested_bad.contains(std::string(field.name))) << field.name;
  }
}

TEST(ChatRequest, NullIsAbsent) {
  for (const RequestField& field : request_fields()) {
    if ((field.in & kChatRequest) == 0) continue;
    const std::string body = chat_with(field.name, "null");
    if ((field.required_in & kChatRequest) != 0) {
      EXPECT_EQ(bad(body).message, std::string(field.name) + ": missing from the request");
    } else {
      good(body);
    }
  }
  for (const RefusedField& field : refused_fields())
    if ((field.in & kChatRequest) != 0) good(chat_with(field.name, "null"));
  const ChatRequest request = good(chat_with("temperature", "null"));
  EXPECT_FALSE(request.sampling.temperature);
}

TEST(ChatRequest, DefaultsAreThoseOfTheModel) {
  const ChatRequest request = good(chat_with("user", "null"));
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.stream);
  EXPECT_FALSE(request.include_usage);
  EXPECT_FALSE(request.min_pixels);
  EXPECT_FALSE(request.max_pixels);
  const SamplingFields& sampling = request.sampling;
  EXPECT_FALSE(sampling.temperature);
  EXPECT_FALSE(sampling.top_p);
  EXPECT_FALSE(sampling.top_k);
  EXPECT_FALSE(sampling.min_p);
  EXPECT_FALSE(sampling.repetition_penalty);
  EXPECT_FALSE(sampling.seed);
  EXPECT_FALSE(sampling.max_tokens);
  EXPECT_EQ(sampling.presence_penalty, 0);
  EXPECT_EQ(sampling.frequency_penalty, 0);
  EXPECT_EQ(sampling.min_tokens, 0);
  EXPECT_EQ(sampling.logprobs, -1);
  EXPECT_FALSE(sampling.ignore_eos);
  EXPECT_THAT(sampling.logit_bias, ElementsAre());
  EXPECT_THAT(sampling.stop, ElementsAre());
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre());
  EXPECT_EQ(sampling.format.kind, ResponseFormat::Kind::kText);
}

TEST(ChatRequest, EveryFieldArrives) {
  const ChatRequest request = good(R"({"model":"toy","messages":[{"role":"user","content":"hi"}],"stream":true,
    "stream_options":{"include_usage":true,"include_obfuscation":false},"n":3,"temperature":0.5,"top_p":0.9,"top_k":40,
    "min_p":0.05,"presence_penalty":-1.5,"frequency_penalty":1.25,"repetition_penalty":1.1,"logit_bias":{"7":-100,"0":2},
    "seed":12345678901234567890,"max_tokens":50,"min_tokens":2,"ignore_eos":true,"stop":["a","b"],
    "stop_token_ids":[3,4],"logprobs":true,"top_logprobs":5,"user":"u","mm_processor_kwargs":{"min_pixels":100,"max_pixels":200},
    "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{ "type" : "object", "x":null }}}})");
  EXPECT_EQ(request.model, "toy");
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(request.n, 3);
  EXPECT_EQ(request.min_pixels, 100);
  EXPECT_EQ(request.max_pixels, 200);
  const SamplingFields& sampling = request.sampling;
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.top_k, 40);
  EXPECT_EQ(sampling.min_p, 0.05);
  EXPECT_EQ(sampling.presence_penalty, -1.5);
  EXPECT_EQ(sampling.frequency_penalty, 1.25);
  EXPECT_EQ(sampling.repetition_penalty, 1.1);
  EXPECT_THAT(sampling.logit_bias, ElementsAre(Pair(0, 2.0), Pair(7, -100.0)));
  EXPECT_EQ(sampling.seed, 12345678901234567890U);
  EXPECT_EQ(sampling.max_tokens, 50);
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_THAT(sampling.stop, ElementsAre("a", "b"));
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre(3, 4));
  EXPECT_EQ(sampling.logprobs, 5);
  EXPECT_EQ(sampling.format.kind, ResponseFormat::Kind::kJsonSchema);
  EXPECT_EQ(sampling.format.schema, R"({"type":"object","x":null})");
}

TEST(ChatRequest, FieldsThatBelongTogether) {
  EXPECT_EQ(good(chat_with("seed", "-1")).sampling.seed, ~std::uint64_t{0});
  EXPECT_EQ(good(chat_with("top_k", "-1")).sampling.top_k, 0);
  EXPECT_EQ(good(chat_with("stop", "\"x\"")).sampling.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(good(chat_with("logprobs", "true")).sampling.logprobs, 0);
  EXPECT_EQ(good(chat_with("logprobs", "false")).sampling.logprobs, -1);
  EXPECT_EQ(good(chat_with("top_logprobs", "0")).sampling.logprobs, -1);
  EXPECT_EQ(good(chat_with("n", "2.0")).n, 2);
  EXPECT_EQ(good(chat_with("response_format", R"({"type":"json_object"})")).sampling.format.kind,
            ResponseFormat::Kind::kJsonObject);
  // The newer of the two wins, whichever comes first.
  EXPECT_EQ(good(chat_with("max_tokens", R"(5,"max_completion_tokens":9)")).sampling.max_tokens, 9);
  EXPECT_EQ(good(chat_with("max_completion_tokens", R"(9,"max_tokens":5)")).sampling.max_tokens, 9);
  EXPECT_EQ(good(chat_with("max_tokens", R"(5,"min_tokens":5)")).sampling.min_tokens, 5);
  EXPECT_EQ(bad(chat_with("max_tokens", R"(5,"min_tokens":6)")).message,
            "min_tokens: expected at most the 5 of max_tokens, got 6");
  EXPECT_EQ(bad(chat_with("min_tokens", R"(6,"max_completion_tokens":5)")).message,
            "min_tokens: expected at most the 5 of max_completion_tokens, got 6");
}

TEST(ChatRequest, StreamOptions) {
  EXPECT_TRUE(good(chat_with("stream_options", R"({"include_usage":true},"stream":true)")).include_usage);
  EXPECT_FALSE(good(chat_with("stream_options", R"({"include_usage":null},"stream":true)")).include_usage);
  EXPECT_EQ(bad(chat_with("stream_options", R"({},"stream":false)")).param, "stream_options");
  good(chat_with("stream_options", R"(null,"stream":false)"));
}

TEST(ChatRequest, WhatWouldChangeTheAnswerIsRefusedByName) {
  const std::pair<std::string, std::string> cases[] = {
      {"tools", R"([{"type":"function","function":{"name":"f"}}])"},
      {"tool_choice", "\"required\""},
      {"tool_choice", R"({"type":"function","function":{"name":"f"}})"},
      {"functions", R"([{"name":"f"}])"},
      {"function_call", R"({"name":"f"})"},
      {"audio", R"({"voice":"alloy"})"},
      {"modalities", R"(["text","audio"])"},
      {"modalities", R"(["audio"])"},
      {"prediction", R"({"type":"content","content":"x"})"},
      {"web_search_options", "{}"},
      {"echo", "true"},
      {"best_of", "4"},
      {"use_beam_search", "true"},
      {"guided_json", "{}"},
      {"guided_regex", "\"a+\""},
      {"guided_choice", "[\"a\"]"},
      {"structured_outputs", "{}"},
      {"prompt_logprobs", "1"},
      {"bad_words", "[\"x\"]"},
      {"logits_processors", "[\"x\"]"},
      {"continue_final_message", "true"},
      {"add_generation_prompt", "false"},
      {"skip_special_tokens", "false"},
      {"include_stop_str_in_output", "true"},
      {"chat_template", "\"{{ messages }}\""}};
  for (const auto& [name, value] : cases) {
    const ApiError error = bad(chat_with(name, value));
    EXPECT_EQ(error.kind, ErrorKind::kUnsupported) << name;
    EXPECT_EQ(error.param, name);
    EXPECT_EQ(error.message, name + ": not supported here");
  }
}

TEST(ChatRequest, WhatHappensAnywayMayBeSaid) {
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{{"tools", "[]"},
                                                                                    {"tool_choice", "\"none\""},
                                                                                    {"tool_choice", "\"auto\""},
                                                                                    {"functions", "[ ]"},
                                                                                    {"modalities", "[ \"text\" ]"},
                                                                                    {"echo", "false"},
                                                                                    {"best_of", "1"},
                                                                                    {"skip_special_tokens", "true"}})
    good(chat_with(name, value));
}

TEST(ChatRequest, HarmlessAndUnknownFieldsAreIgnored) {
  for (const char* name : {"store", "metadata", "service_tier", "parallel_tool_calls", "reasoning_effort", "verbosity",
                           "prompt_cache_key", "safety_identifier", "priority", "no_such_field", "Temperature", ""})
    for (const char* value : {"true", "\"auto\"", "{\"a\":[1]}", "null", "[]"}) good(chat_with(name, value));
}

TEST(ChatRequest, AFieldThatComesTwiceIsAnError) {
  EXPECT_EQ(bad(chat_with("temperature", R"(1,"temperature":1)")).message, "temperature: given twice");
  EXPECT_EQ(bad(chat_with("temperature", R"(null,"temperature":1)")).param, "temperature");
  EXPECT_EQ(bad(chat_with("seed", R"(1,"se\u0065d":1)")).message, "seed: given twice");
  EXPECT_EQ(bad(chat_with("stream_options", R"({"include_usage":true,"include_usage":true})")).message,
            "stream_options.include_usage: given twice");
  EXPECT_EQ(bad(R"({"model":"m","messages":[{"role":"user","role":"user","content":"x"}]})").message,
            "messages[0].role: given twice");
}

TEST(ChatRequest, BodiesThatAreNoRequest) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "request body: not valid JSON: it is empty"},
      {"{", "request body: not valid JSON: a bracket, comma, colon or value is missing or out of place"},
      {"[]", "request body: expected a JSON object, got an empty list"},
      {"\"x\"", "request body: expected a JSON object, got \"x\""},
      {"null", "request body: expected a JSON object, got null"},
      {"\xFF", "request body: not valid JSON: it is not UTF-8"},
      {chat_with("temperature", "NaN"),
       "request body: not valid JSON: a bracket, comma, colon or value is missing or out of place"},
      {chat_with("temperature", "1e999"), "request body: not valid JSON: a number that is malformed or too large"},
      {chat_with("seed", "100000000000000000000"),
       "request body: not valid JSON: a number that is malformed or too large"},
      {chat_with("x", "\"\xFF\""), "request body: not valid JSON: it is not UTF-8"},
      {"{}", "model: missing from the request"},
      {R"({"model":"m"})", "messages: missing from the request"}};
  for (const auto& [body, message] : cases) {
    const ApiError error = bad(body);
    EXPECT_EQ(error.message, message) << body;
    EXPECT_EQ(error.kind, ErrorKind::kInvalidRequest);
    EXPECT_EQ(error.param, message.ends_with("missing from the request") ? message.substr(0, message.find(':')) : "");
  }
  // Body, messages, message and what it holds are 4 levels.
  EXPECT_TRUE(parse_chat_request(chat_with("x", "0"), {.max_depth = 4}));
  const auto deep = parse_chat_request(chat_with("x", "0"), {.max_depth = 3});
  ASSERT_FALSE(deep);
  EXPECT_EQ(deep.error().message, "request body: not valid JSON: it is nested deeper than 3 levels");
}

TEST(ChatRequest, LimitsAreTheCallersToChoose) {
  const RequestLimits limits{.max_messages = 2, .max_text = 10, .max_depth = 6, .max_n = 2, .max_schema = 20};
  const auto error = [&](std::string_view body) {
    const auto parsed = parse_chat_request(body, limits);
    return parsed ? ApiError{ErrorKind::kInternal, "good", {}} : parsed.error();
  };
  const auto messages = [](std::string_view list) { return chat_with("messages", list); };
  EXPECT_EQ(error(messages(R"([{"role":"user","content":"12345"},{"role":"user","content":"67890"}])")).message,
            "good");
  const ApiError text = error(messages(R"([{"role":"user","content":"12345"},{"role":"user","content":"678901"}])"));
  EXPECT_EQ(text.kind, ErrorKind::kTooLarge);
  EXPECT_EQ(text.param, "messages[1].content");
  EXPECT_THAT(text.message, HasSubstr("at most 10 bytes of text"));
  const std::string empty = R"({"role":"user","content":""})";
  EXPECT_EQ(error(messages("[" + empty + "," + empty + "," + empty + "]")).message,
            "messages: expected at most 2 entries, got 3");
  EXPECT_EQ(error(chat_with("n", "3")).message, "n: expected an integer from 1 to 2, got 3");
  EXPECT_THAT(error(chat_with("x", "[[[[[[1]]]]]]")).message, HasSubstr("nested deeper than 6 levels"));
  const auto schema = [](std::string_view text_of) {
    return chat_with("response_format",
                     R"({"type":"json_schema","json_schema":{"schema":)" + std::string(text_of) + "}}");
  };
  EXPECT_EQ(error(schema(R"({ "a" : "12345678901" })")).message, "good") << "spaces do not count";
  EXPECT_EQ(error(schema(R"({"a":"1234567890123456"})")).kind, ErrorKind::kTooLarge);
}

TEST(ChatRequest, LongValuesAreCutInErrors) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "ä";
  const std::string message = bad(chat_with("temperature", "\"" + text + "\"")).message;
  EXPECT_LT(message.size(), 150U);
  EXPECT_TRUE(is_utf8(message));
  EXPECT_THAT(message, HasSubstr("ä…\""));
  // Names from outside are cut too.
  const std::string name(5000, 'k');
  EXPECT_LT(bad(chat_with(name, "1,\"" + name + "\":2")).message.size(), 100U);
  std::string many;
  for (int i = 0; i < 2000; ++i) many += fmt::format("{}\"k{}\":1", i == 0 ? "" : ",", i);
  EXPECT_THAT(bad("{" + many + "}").message, HasSubstr("expected at most 1024 members, got 2000"));
}

TEST(AskRequest, EveryFieldArrives) {
  const auto request = parse_ask_request(R"({"model":"toy","system":"Be short.","images":["data:image/png;base64,AAAA",
    {"type":"image_url","image_url":{"url":"https://a.example/b.png","detail":"low"}},{"url":"data:image/gif;base64,AAEC"},
    {"type":"video","video":["data:image/png;base64,AAAA","data:image/png;base64,AAAB"]}],
    "questions":["How many?","有几棵树?"],"stream":true,"temperature":0,"max_tokens":7,"min_pixels":10,"logprobs":true})",
                                         {});
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->model, "toy");
  EXPECT_EQ(request->system, "Be short.");
  EXPECT_THAT(request->questions, ElementsAre("How many?", "有几棵树?"));
  EXPECT_TRUE(request->stream);
  EXPECT_EQ(request->min_pixels, 10);
  EXPECT_EQ(request->sampling.max_tokens, 7);
  EXPECT_EQ(request->sampling.logprobs, 0);
  ASSERT_EQ(request->pictures.size(), 4U);
  EXPECT_EQ(request->pictures[0].images.at(0).bytes, std::string(3, '\0'));
  EXPECT_EQ(request->pictures[0].images.at(0).param, "images[0]");
  EXPECT_EQ(request->pictures[1].images.at(0).url, "https://a.example/b.png");
  EXPECT_EQ(request->pictures[1].images.at(0).detail, ImageInput::Detail::kLow);
  EXPECT_EQ(request->pictures[2].images.at(0).bytes, std::string("\0\1\2", 3));
  EXPECT_EQ(request->pictures[3].kind, ContentPart::Kind::kVideo);
  EXPECT_EQ(request->pictures[3].images.size(), 2U);
}

TEST(AskRequest, Errors) {
  const auto error = [](std::string_view name, std::string_view value) {
    const auto parsed = parse_ask_request(body_with(kAskRequest, name, value), {.max_images = 2, .max_questions = 2});
    return parsed ? "good" : parsed.error().message;
  };
  EXPECT_EQ(error("model", "null"), "good");
  EXPECT_EQ(error("images", "null"), "images: missing from the request");
  EXPECT_THAT(error("images", "[]"), HasSubstr("images: expected a list of pictures"));
  EXPECT_THAT(error("images", "\"data:\""), HasSubstr("images: expected a list of pictures"));
  EXPECT_EQ(error("images", R"([{"type":"text","text":"x"}])"), "images[0]: expected a picture or video, got text");
  EXPECT_THAT(error("images", "[5]"), HasSubstr("images[0]: expected a picture"));
  EXPECT_EQ(
      error("images", R"(["data:image/png;base64,AAAA","data:image/png;base64,AAAA","data:image/png;base64,AAAA"])"),
      "images: expected at most 2 entries, got 3");
  EXPECT_THAT(
      error(
          "images",
          R"(["data:image/png;base64,AAAA",{"type":"video","video":["data:image/png;base64,AAAA","data:image/png;base64,AAAA"]}])"),
      HasSubstr("images[1].video[1]: expected at most 2 pictures and frames"));
  EXPECT_EQ(error("questions", "null"), "questions: missing from the request");
  EXPECT_EQ(error("questions", "[]"), "questions: expected a list of questions, got an empty list");
  EXPECT_EQ(error("questions", R"(["a",""])"), "questions[1]: expected a string that is not empty, got \"\"");
  EXPECT_EQ(error("questions", R"(["a","b","c"])"), "questions: expected at most 2 entries, got 3");
  EXPECT_EQ(error("system", "7"), "system: expected a string, got 7");
  EXPECT_EQ(error("messages", "[]"), "messages: not supported here");
  EXPECT_EQ(error("n", "2"), "n: not supported here");
  EXPECT_EQ(error("n", "1"), "good");
  EXPECT_EQ(error("min_pixels", R"(5,"mm_processor_kwargs":{"min_pixels":5})"),
            "mm_processor_kwargs.min_pixels: given twice, by itself and in mm_processor_kwargs");
  EXPECT_EQ(error("min_pixels", R"(5,"max_pixels":4)"), "min_pixels: expected at most the 4 of max_pixels, got 5");
  EXPECT_EQ(error("temperature", "3"), "temperature: expected a number from 0 to 2, got 3");
  EXPECT_EQ(error("tools", "[1]"), "tools: not supported here");
}

TEST(ImageUpload, GoodAndBad) {
  const auto parse = [](std::string_view body) { return parse_image_upload(body, {}); };
  const auto upload = parse(R"({"image":"data:image/png;base64,AAAA","min_pixels":7,"max_pixels":9,"model":5})");
  ASSERT_TRUE(upload) << upload.error().message;
  EXPECT_EQ(upload->image.bytes.size(), 3U);
  EXPECT_EQ(upload->image.param, "image");
  EXPECT_EQ(upload->min_pixels, 7);
  EXPECT_EQ(upload->max_pixels, 9);
  EXPECT_EQ(parse(R"({"image":{"type":"image_url","image_url":"http://h/x"}})")->image.url, "http://h/x");
  EXPECT_EQ(parse("{}").error().message, "image: missing from the request");
  EXPECT_EQ(parse(R"({"image":7})").error().message, "image: expected a picture (a data URI, a URL or a part), got 7");
  EXPECT_EQ(parse(R"({"image":"data:image/png;base64,AAAA","max_pixels":0})").error().param, "max_pixels");
  EXPECT_EQ(parse(R"({"image":"data:image/png;base64,AAAA","max_pixels":1,"min_pixels":2})").error().param,
            "min_pixels");
}

}  // namespace
}  // namespace chiasm
