#include "api/chat_response.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::HasSubstr;
using testing::Not;

const AnswerHead kHead{"chatcmpl-1", 1700000000, "toytown"};
const AnswerUsage kUsage{100, 7, 64};
const std::vector<VisionUse> kVision = {{"ab12", 81, "memory", 0.0124}};
const AnswerTiming kTiming{0.5, 12.3456, 30, 41.0001};

const std::string kUsageText =
    R"("usage":{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107,"prompt_tokens_details":{"cached_tokens":64}})";
const std::string kVisionText = R"("vision":[{"feature_id":"ab12","tokens":81,"source":"memory","ms":0.012}])";
const std::string kTimingText = R"("timing":{"queue_ms":0.5,"vision_ms":12.346,"prefill_ms":30.0,"decode_ms":41.0})";
const std::string kChunk =
    R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"toytown","choices":)";

TEST(ChatResponse, Whole) {
  EXPECT_EQ(
      chat_completion_json(kHead, {{0, "Two cars.\n", "stop", {}}, {1, "有", "length", {}}}, kUsage, kVision, kTiming),
      R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"toytown","choices":[)"
      R"({"index":0,"message":{"role":"assistant","content":"Two cars.\n","refusal":null},"logprobs":null,)"
      R"("finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"有","refusal":null},)"
      R"("logprobs":null,"finish_reason":"length"}],)" +
          kUsageText + "," + kVisionText + "," + kTimingText + "}");
  EXPECT_THAT(chat_completion_json(kHead, {}, {}, {}, {}), HasSubstr(R"("choices":[],)"));
  EXPECT_THAT(chat_completion_json(kHead, {}, {}, {}, {}), HasSubstr(R"("vision":[],)"));
}

TEST(ChatResponse, Logprobs) {
  const std::vector<TokenLogprobs> tokens = {
      {{"Two", -0.25}, {{"Two", -0.25}, {"\xE6\x9C", -std::numeric_limits<double>::infinity()}}}, {{"", 0}, {}}};
  EXPECT_THAT(
      chat_completion_json(kHead, {{0, "Two", "stop", tokens}}, kUsage, {}, kTiming),
      HasSubstr(R"("logprobs":{"content":[{"token":"Two","logprob":-0.25,"bytes":[84,119,111],"top_logprobs":[)"
                R"({"token":"Two","logprob":-0.25,"bytes":[84,119,111]},)"
                "{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-9999.0,\"bytes\":[230,156]}]},"
                R"({"token":"","logprob":0.0,"bytes":[],"top_logprobs":[]}],"refusal":null},"finish_reason":"stop"})"));
  EXPECT_THAT(chat_completion_json(kHead, {{0, "", "stop", std::vector<TokenLogprobs>{}}}, kUsage, {}, kTiming),
              HasSubstr(R"("logprobs":{"content":[],"refusal":null})"));
  EXPECT_THAT(text_chunk_json(kHead, 0, "a", &tokens, false), HasSubstr(R"("bytes":[84,119,111])"));
  const std::vector<TokenLogprobs> odd = {{{"a", std::nan("")}, {{"b", -1e9}}}};
  EXPECT_THAT(text_chunk_json(kHead, 0, "a", &odd, false), Not(HasSubstr("null,\"bytes\"")));
  EXPECT_THAT(text_chunk_json(kHead, 0, "a", &odd, false), HasSubstr("\"logprob\":-9999.0,\"bytes\":[98]"));
}

TEST(ChatResponse, Chunks) {
  EXPECT_EQ(
      role_chunk_json(kHead, 0, false),
      kChunk + R"([{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(text_chunk_json(kHead, 1, "x\"y", nullptr, false),
            kChunk + R"([{"index":1,"delta":{"content":"x\"y"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(finish_chunk_json(kHead, 1, "stop", false),
            kChunk + R"([{"index":1,"delta":{},"logprobs":null,"finish_reason":"stop"}]})");
  EXPECT_EQ(usage_chunk_json(kHead, kUsage, kVision, kTiming),
            kChunk + "[]," + kUsageText + "," + kVisionText + "," + kTimingText + "}");
}

TEST(ChatResponse, ChunksSayUsageNullWhereItComesLast) {
  for (const std::string& json : {role_chunk_json(kHead, 0, true), text_chunk_json(kHead, 0, "x", nullptr, true),
                                  finish_chunk_json(kHead, 0, "stop", true)})
    EXPECT_TRUE(json.ends_with(R"(],"usage":null})")) << json;
}

TEST(ChatResponse, OneLineOfUtf8WhateverTheText) {
  const std::string text = "a\nb\r\xFF\x80 \xE2\x80\xA8 \xED\xA0\x80 \x01";
  const std::vector<TokenLogprobs> tokens = {{{text, -1}, {}}};
  AskAnswer answer;
  answer.question = answer.answer = text;
  answer.error = ApiError{ErrorKind::kInternal, text, text};
  const AnswerHead head{"id", 1, text};
  for (const std::string& json :
       {chat_completion_json(head, {{0, text, "stop", tokens}}, kUsage, {{text, 1, text, 1}}, kTiming),
        text_chunk_json(head, 0, text, &tokens, true), ask_result_json(head, {answer}, kUsage, kVision),
        ask_answer_json(head, answer), ask_delta_json(head, 0, text), image_json({.id = text, .source = text}),
        model_json({text, 1, 2})}) {
    EXPECT_TRUE(is_utf8(json));
    EXPECT_EQ(json.find_first_of("\n\r"), std::string::npos);
    EXPECT_TRUE(Json::parse(json, "answer"));
  }
}

TEST(AskResponse, Whole) {
  AskAnswer good{0, "How many?", "Two.", "stop", {50, 2, 40}, {1, 2, 3, 4}, {}, {}};
  AskAnswer failed;
  failed.index = 1;
  failed.question = "Why?";
  failed.error = ApiError{ErrorKind::kDeadline, "late", {}};
  const std::string first =
      R"("index":0,"question":"How many?","answer":"Two.","finish_reason":"stop","logprobs":null,)"
      R"("usage":{"prompt_tokens":50,"completion_tokens":2,"total_tokens":52,"prompt_tokens_details":{"cached_tokens":40}},)"
      R"("timing":{"queue_ms":1.0,"vision_ms":2.0,"prefill_ms":3.0,"decode_ms":4.0},"error":null})";
  const std::string zero =
      R"("usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0}},)"
      R"("timing":{"queue_ms":0.0,"vision_ms":0.0,"prefill_ms":0.0,"decode_ms":0.0},)";
  EXPECT_EQ(ask_result_json({"ask-1", 5, "toytown"}, {good, failed}, kUsage, kVision),
            R"({"id":"ask-1","object":"ask.result","created":5,"model":"toytown","answers":[{)" + first +
                R"(,{"index":1,"question":"Why?","answer":null,"finish_reason":null,"logprobs":null,)" + zero +
                R"("error":{"message":"late","type":"server_error","param":null,"code":"deadline_exceeded"}}],)" +
                kUsageText + "," + kVisionText + "}");
  EXPECT_EQ(ask_answer_json({"ask-1", 5, "toytown"}, good), R"({"object":"ask.answer","id":"ask-1",)" + first);
}

TEST(AskResponse, Events) {
  const AnswerHead head{"ask-1", 5, "toytown"};
  EXPECT_EQ(ask_vision_json(head, kVision),
            R"({"object":"ask.vision","id":"ask-1","created":5,"model":"toytown",)" + kVisionText + "}");
  EXPECT_EQ(ask_delta_json(head, 3, "Tw"), R"({"object":"ask.delta","id":"ask-1","index":3,"text":"Tw"})");
  EXPECT_EQ(ask_done_json(head, kUsage), R"({"object":"ask.done","id":"ask-1",)" + kUsageText + "}");
}

TEST(OtherResponses, ModelsAndImages) {
  const std::string model =
      R"({"id":"toytown","object":"model","created":5,"owned_by":"chiasm","max_model_len":32768})";
  EXPECT_EQ(model_json({"toytown", 5, 32768}), model);
  EXPECT_EQ(model_list_json({{"toytown", 5, 32768}}), R"({"object":"list","data":[)" + model + "]}");
  EXPECT_EQ(model_list_json({}), R"({"object":"list","data":[]})");
  EXPECT_EQ(image_json({"ab12", {1, 18, 18}, 81, "encoded", 12.5}),
            R"({"id":"ab12","object":"image","grid_thw":[1,18,18],"tokens":81,"source":"encoded","ms":12.5})");
  EXPECT_EQ(deleted_json("ab12", "image"), R"({"id":"ab12","object":"image","deleted":true})");
}

TEST(OtherResponses, NumbersThatAreNoneAreZero) {
  EXPECT_THAT(image_json({"a", {1, 2, 3}, 1, "x", std::nan("")}), HasSubstr(R"("ms":0.0})"));
}

}  // namespace
}  // namespace chiasm
