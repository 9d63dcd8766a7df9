// Requests that tests of api/ share: values of every field that are good, bad, or refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/request_fields.h"

namespace chiasm {

struct FieldCase {
  std::string name;
  std::string value;           // JSON text
  std::string error = {};      // the whole message; "": the value is good
  bool beyond_schema = false;  // what is wrong with it cannot be said in JSON Schema
};

// {"model": "m", "messages": [...], NAME: VALUE}, where NAME takes the place of a field of the same name.
inline std::string body_with(RequestKind kind, std::string_view name, std::string_view value) {
  std::vector<std::pair<std::string, std::string>> fields;
  if (kind == kChatRequest) fields = {{"model", "\"m\""}, {"messages", R"([{"role":"user","content":"hi"}])"}};
  if (kind == kAskRequest) fields = {{"images", R"(["data:image/png;base64,AAAA"])"}, {"questions", R"(["why?"])"}};
  if (kind == kUploadRequest) fields = {{"image", R"("data:image/png;base64,AAAA")"}};
  std::string out = "{";
  for (const auto& [key, text] : fields)
    if (key != name) out += fmt::format("\"{}\":{},", key, text);
  return out + fmt::format("\"{}\":{}}}", name, value);
}
inline std::string chat_with(std::string_view name, std::string_view value) {
  return body_with(kChatRequest, name, value);
}

// Every field of a chat request but messages, whose cases are in chat_content_test.cpp.
inline std::vector<FieldCase> chat_field_cases() {
  std::vector<FieldCase> out = {
      {"model", "\"m\""},
      {"model", "\"\"", "model: expected a string that is not empty, got \"\""},
      {"model", "7", "model: expected a string that is not empty, got 7"},
      {"stream", "true"},
      {"stream", "false"},
      {"stream", "\"true\"", "stream: expected true or false, got \"true\""},
      {"stream", "1", "stream: expected true or false, got 1"},
      {"stream_options", "{\"include_usage\":true}", "stream_options: expected only where stream is true", true},
      {"stream_options", "[]", "stream_options: expected an object with include_usage, got an empty list"},
      {"stream_options", "{\"include_usage\":1}", "stream_options.include_usage: expected true or false, got 1"},
      {"seed", "0"},
      {"seed", "-1"},
      {"seed", "18446744073709551615"},
      {"seed", "-9223372036854775808"},
      {"seed", "1.5", "seed: expected an integer of 64 bits, got 1.5"},
      {"seed", "1e30", "seed: expected an integer of 64 bits, got 1e+30"},
      {"seed", "\"7\"", "seed: expected an integer of 64 bits, got \"7\""},
      {"stop", "\"END\""},
      {"stop", "[]"},
      {"stop", "[\"a\",\"b\"]"},
      {"stop", "\"\"", "stop: expected a string that is not empty, got \"\""},
      {"stop", "[\"a\",\"\"]", "stop[1]: expected a string that is not empty, got \"\""},
      {"stop", "[\"a\",3]", "stop[1]: expected a string that is not empty, got 3"},
      {"stop", "{}", "stop: expected a string or a list of strings, got an object"},
      {"stop", "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"]"},
      {"stop",
       "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]",
       "stop: expected at most 16 entries, got 17"},
      {"stop", "\"" + std::string(1025, 'x') + "\"", "stop: expected at most 1024 bytes, got 1025", true},
      {"stop_token_ids", "[]"},
      {"stop_token_ids", "[151645,0]"},
      {"stop_token_ids", "[-1]", "stop_token_ids[0]: expected an integer from 0 to 2147483647, got -1"},
      {"stop_token_ids", "[\"x\"]", "stop_token_ids[0]: expected an integer from 0 to 2147483647, got \"x\""},
      {"stop_token_ids", "5", "stop_token_ids: expected a list of token ids, got 5"},
      {"ignore_eos", "true"},
      {"ignore_eos", "0", "ignore_eos: expected true or false, got 0"},
      {"logprobs", "true"},
      {"logprobs", "false"},
      {"logprobs", "\"yes\"", "logprobs: expected true or false, got \"yes\""},
      {"logprobs", "5", "logprobs: expected true or false; how many tokens to tell is top_logprobs"},
      {"top_logprobs", "0"},
      {"top_logprobs", "3", "top_logprobs: expected only where logprobs is true", true},
      {"logit_bias", "{}"},
      {"logit_bias", "{\"0\":-100,\"151643\":100,\"7\":0.5}"},
      {"logit_bias", "{\"1\":null}"},
      {"logit_bias", "{\"1\":101}", "logit_bias.1: expected a number from -100 to 100, got 101"},
      {"logit_bias", "{\"1\":\"a\"}", "logit_bias.1: expected a number from -100 to 100, got \"a\""},
      {"logit_bias", "{\"hello\":1}", "logit_bias.hello: expected a token id from 0 to 2147483647 as the key"},
      {"logit_bias", "{\"\":1}", "logit_bias.: expected a token id from 0 to 2147483647 as the key"},
      {"logit_bias", "{\"01\":1}", "logit_bias.01: expected a token id from 0 to 2147483647 as the key"},
      {"logit_bias", "{\"-1\":1}", "logit_bias.-1: expected a token id from 0 to 2147483647 as the key"},
      {"logit_bias", "{\"2147483648\":1}", "logit_bias.2147483648: expected a token id from 0 to 2147483647 as the key",
       true},
      {"logit_bias", "{\"1\":1,\"1\":2}", "logit_bias.1: given twice", true},
      {"logit_bias", "[]", "logit_bias: expected an object from token ids to numbers, got an empty list"},
      {"response_format", "{\"type\":\"text\"}"},
      {"response_format", "{\"type\":\"json_object\"}"},
      {"response_format",
       R"({"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}})"},
      {"response_format", R"({"type":"json_schema","json_schema":{"schema":{}}})"},
      {"response_format", "{}", "response_format.type: missing, expected one of text, json_object, json_schema"},
      {"response_format", "\"json\"", "response_format: expected an object with a type, got \"json\""},
      {"response_format", R"({"type":"yaml"})",
       "response_format.type: expected one of text, json_object, json_schema, got \"yaml\""},
      {"response_format", R"({"type":"grammar"})",
       "response_format.type: not supported here: expected one of text, json_object, json_schema"},
      {"response_format", R"({"type":"json_schema"})",
       "response_format.json_schema: missing, expected an object with a schema"},
      {"response_format", R"({"type":"json_schema","json_schema":{"name":"n"}})",
       "response_format.json_schema.schema: missing, expected a JSON schema"},
      {"response_format", R"({"type":"json_schema","json_schema":{"name":"n","schema":[1]}})",
       "response_format.json_schema.schema: expected a JSON schema as an object, got a list"},
      {"response_format", R"({"type":"json_schema","json_schema":{"name":7,"schema":{}}})",
       "response_format.json_schema.name: expected a string that is not empty, got 7"},
      {"response_format", R"({"type":"json_schema","json_schema":{"name":"n","strict":"y","schema":{}}})",
       "response_format.json_schema.strict: expected true or false, got \"y\""},
      {"mm_processor_kwargs", "{}"},
      {"mm_processor_kwargs", R"({"min_pixels":3136,"max_pixels":1003520})"},
      {"mm_processor_kwargs", R"({"fps":null})"},
      {"mm_processor_kwargs", R"({"min_pixels":0})",
       "mm_processor_kwargs.min_pixels: expected an integer from 1 to 1099511627776, got 0"},
      {"mm_processor_kwargs", R"({"max_pixels":"big"})",
       "mm_processor_kwargs.max_pixels: expected an integer from 1 to 1099511627776, got \"big\""},
      {"mm_processor_kwargs", R"({"min_pixels":200,"max_pixels":100})",
       "mm_processor_kwargs.min_pixels: expected at most the 100 of max_pixels, got 200", true},
      {"mm_processor_kwargs", R"({"fps":2})",
       "mm_processor_kwargs.fps: not supported here: expected min_pixels or max_pixels"},
      {"mm_processor_kwargs", "7", "mm_processor_kwargs: expected an object with min_pixels and max_pixels, got 7"},
      {"chat_template_kwargs", R"({"enable_thinking":false,"add_vision_id":false,"add_generation_prompt":true})"},
      {"chat_template_kwargs", R"({"add_vision_id":true})", "chat_template_kwargs.add_vision_id: not supported here",
       true},
      {"chat_template_kwargs", R"({"add_generation_prompt":false})",
       "chat_template_kwargs.add_generation_prompt: not supported here", true},
      {"chat_template_kwargs", "[]", "chat_template_kwargs: expected an object, got an empty list"},
      {"user", "\"u\""},
      {"user", "3", "user: expected a string, got 3"},
      {"min_tokens", "0"},
      {"n", "1.0"},  // an integer, as JSON Schema sees it
      {"n", "1.5", "n: expected an integer from 1 to 16, got 1.5"},
      {"temperature", "\"hot\"", "temperature: expected a number from 0 to 2, got \"hot\""},
      {"temperature", "[1]", "temperature: expected a number from 0 to 2, got a list"},
      {"temperature", "true", "temperature: expected a number from 0 to 2, got true"},
      {"repetition_penalty", "0", "repetition_penalty: expected a number above 0 and up to 100, got 0"},
  };
  // Numbers with a plain range: its ends, what is just beyond them, and another kind.
  struct Range {
    std::string name, low, high, below, above, what;
  };
  const Range ranges[] = {
      {"temperature", "0", "2", "-0.01", "2.01", "a number from 0 to 2"},
      {"top_p", "0", "1", "-0.01", "1.001", "a number from 0 to 1"},
      {"min_p", "0", "1", "-0.1", "1.1", "a number from 0 to 1"},
      {"top_k", "-1", "2147483647", "-2", "2147483648", "an integer from -1 to 2147483647"},
      {"presence_penalty", "-2", "2", "-2.1", "2.1", "a number from -2 to 2"},
      {"frequency_penalty", "-2", "2", "-2.1", "2.1", "a number from -2 to 2"},
      {"repetition_penalty", "0.01", "100", "0", "101", "a number above 0 and up to 100"},
      {"n", "1", "16", "0", "17", "an integer from 1 to 16"},
      {"max_tokens", "1", "2147483647", "0", "2147483648", "an integer from 1 to 2147483647"},
      {"max_completion_tokens", "1", "2147483647", "-5", "1e300", "an integer from 1 to 2147483647"},
      {"min_tokens", "0", "2147483647", "-1", "2147483648", "an integer from 0 to 2147483647"},
      {"top_logprobs", "0", "0", "-1", "21", "an integer from 0 to 20"},
  };
  for (const Range& range : ranges) {
    for (const std::string& good : {range.low, range.high}) out.push_back({range.name, good});
    for (const std::string& bad : {range.below, range.above, std::string("{}")}) {
      const std::string shown = bad == "{}" ? "an object" : bad == "1e300" ? "1e+300" : bad;
      out.push_back({range.name, bad, range.name + ": expected " + range.what + ", got " + shown});
    }
  }
  return out;
}

}  // namespace chiasm
