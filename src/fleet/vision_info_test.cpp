#include "fleet/vision_info.h"

#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/test_support.h"

namespace chiasm {
namespace {

using OrderedJson = nlohmann::ordered_json;

VisionInfo sample() {
  VisionInfo info;
  info.model = "Qwen2-VL-2B-Instruct";
  info.version = "0.1.0";
  info.vision_digest.bytes.fill(0xab);
  info.hidden_size = 1536;
  info.preprocessor.min_pixels = 3136;
  info.preprocessor.max_pixels = 1'003'520;
  info.preprocess_digest = info.preprocessor.digest();
  info.limits = {.max_body = 33'554'432, .max_megapixels = 64, .max_picture_tokens = 16384};
  return info;
}

Error error_of(const std::function<void(OrderedJson&)>& edit) {
  OrderedJson json = OrderedJson::parse(vision_info_json(sample()));
  edit(json);
  const auto info = parse_vision_info(json.dump(), "info");
  return info ? Error{Code::kInternal, "parsed"} : info.error();
}

TEST(VisionInfo, ReadsWhatAServerSays) {
  const std::string text = R"({"object":"vision.info","model":"m","version":"1","vision_digest":")" +
                           std::string(64, 'a') + R"(","preprocess_digest":")" + PreprocessorConfig{}.digest().hex() +
                           R"(","hidden_size":1536,"preprocessor":{"min_pixels":3136,"max_pixels":1003520,
      "patch_size":14,"temporal_patch_size":2,"merge_size":2,"image_mean":[0.48145466,0.4578275,0.40821073],
      "image_std":[0.26862954,0.26130258,0.27577711]},"limits":{"max_body":33554432,"max_megapixels":64,
      "max_picture_tokens":16384},"later":{"fields":"are ignored"}})";
  const VisionInfo info = must(parse_vision_info(text, "info"));
  EXPECT_EQ(info.model, "m");
  EXPECT_EQ(info.version, "1");
  EXPECT_EQ(info.vision_digest.hex(), std::string(64, 'a'));
  EXPECT_EQ(info.preprocess_digest, PreprocessorConfig{}.digest());
  EXPECT_EQ(info.hidden_size, 1536);
  EXPECT_EQ(info.preprocessor, PreprocessorConfig{});
  EXPECT_EQ(info.limits.max_body, 33'554'432U);
  EXPECT_EQ(info.limits.max_megapixels, 64);
  EXPECT_EQ(info.limits.max_picture_tokens, 16384);
}

TEST(VisionInfo, WhatIsWrittenReadsTheSame) {
  VisionInfo info = sample();
  info.preprocessor.image_mean = {0.1, 1.0 / 3, -2};
  info.preprocessor.image_std = {1e-6, 1, 0.30000000000000004};
  info.preprocess_digest = info.preprocessor.digest();
  const VisionInfo back = must(parse_vision_info(vision_info_json(info), "info"));
  EXPECT_EQ(back.preprocessor, info.preprocessor);
  EXPECT_EQ(back.preprocess_digest, info.preprocess_digest);
  EXPECT_EQ(vision_info_json(back), vision_info_json(info));
}

TEST(VisionInfo, ANameThatIsNoUtf8IsStillWritten) {
  VisionInfo info = sample();
  info.model = "caf\xe9";
  EXPECT_EQ(must(parse_vision_info(vision_info_json(info), "info")).model, "caf\xef\xbf\xbd");
}

TEST(VisionInfo, EveryFieldIsNeeded) {
  const OrderedJson whole = OrderedJson::parse(vision_info_json(sample()));
  int fields = 0;
  const auto expect_missing = [&](const std::string& path, const std::function<void(OrderedJson&)>& edit) {
    ++fields;
    const Error error = error_of(edit);
    EXPECT_EQ(error.code, Code::kNotFound) << path << ": " << error.message;
    EXPECT_NE(error.message.find(path), std::string::npos) << error.message;
  };
  for (const auto& [key, value] : whole.items()) {
    expect_missing(key, [&, name = key](OrderedJson& json) { json.erase(name); });
    if (!value.is_object()) continue;
    for (const auto& [inner, ignored] : value.items())
      expect_missing(inner, [&, outer = key, name = inner](OrderedJson& json) { json[outer].erase(name); });
  }
  EXPECT_EQ(fields, 18);
}

TEST(VisionInfo, EveryFieldIsChecked) {
  struct Case {
    std::string pointer, value, message;
  };
  for (const auto& [pointer, value, message] : std::vector<Case>{
           {"/object", "\"list\"", "expected 'vision.info', got 'list'"},
           {"/object", "1", "expected a string"},
           {"/model", "7", "expected a string"},
           {"/model", "\"" + std::string(257, 'x') + "\"", "at most 256 bytes, got 257"},
           {"/version", "[]", "expected a string"},
           {"/vision_digest", "\"abc\"", "expected a digest of 64 hex digits"},
           {"/vision_digest", "\"" + std::string(64, 'g') + "\"", "hex digits"},
           {"/preprocess_digest", "null", "is missing"},
           {"/hidden_size", "0", "from 1 to 1048576, got 0"},
           {"/hidden_size", "1048577", "from 1 to 1048576"},
           {"/hidden_size", "1536.5", "expected an integer"},
           {"/hidden_size", "\"1536\"", "expected an integer, got a string"},
           {"/hidden_size", "99999999999999999999", "expected an integer"},
           {"/preprocessor", "[]", "expected an object"},
           {"/preprocessor/min_pixels", "0", "got 0"},
           {"/preprocessor/min_pixels", "1003521", "at most max_pixels = 1003520, got 1003521"},
           {"/preprocessor/max_pixels", "-1", "got -1"},
           {"/preprocessor/patch_size", "257", "from 1 to 256"},
           {"/preprocessor/temporal_patch_size", "17", "from 1 to 16"},
           {"/preprocessor/merge_size", "0", "from 1 to 16"},
           {"/preprocessor/image_mean", "[0.1,0.2]", "expected three numbers, got 2"},
           {"/preprocessor/image_mean", "[0.1,0.2,1e9]", "1000"},
           {"/preprocessor/image_std", "[0.1,0.2,0]", "got 0"},
           {"/preprocessor/image_std", "0.1", "expected an array"},
           {"/limits", "1", "expected an object"},
           {"/limits/max_body", "0", "got 0"},
           {"/limits/max_megapixels", "-1", "got -1"},
           {"/limits/max_megapixels", "\"64\"", "expected a number"},
           {"/limits/max_picture_tokens", "0", "got 0"},
       }) {
    const Error error = error_of([&, at = pointer, to = value](OrderedJson& json) {
      json[OrderedJson::json_pointer(at)] = OrderedJson::parse(to);
    });
    EXPECT_NE(error.code, Code::kInternal) << pointer << " = " << value << " parsed";
    EXPECT_NE(error.message.find(message), std::string::npos) << pointer << " = " << value << ": " << error.message;
  }
}

TEST(VisionInfo, RoomForOneMergedPatchIsNeeded) {
  const Error error = error_of([](OrderedJson& json) {
    json["preprocessor"]["min_pixels"] = 100;
    json["preprocessor"]["max_pixels"] = 783;
  });
  EXPECT_EQ(error.code, Code::kInvalidArgument);
  EXPECT_NE(error.message.find("784 pixels, got 783"), std::string::npos) << error.message;
}

TEST(VisionInfo, ThePreprocessorMustHaveTheDigestGiven) {
  const Error error = error_of([](OrderedJson& json) { json["preprocessor"]["max_pixels"] = 1'003'521; });
  EXPECT_EQ(error.code, Code::kDataLoss);
  PreprocessorConfig changed = sample().preprocessor;
  changed.max_pixels = 1'003'521;
  EXPECT_NE(error.message.find(changed.digest().hex()), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(sample().preprocess_digest.hex()), std::string::npos) << error.message;
}

TEST(VisionInfo, OverridesChangeTheDigest) {
  const VisionInfo info = sample();
  EXPECT_EQ(info.preprocess_digest_with({}, {}), info.preprocess_digest);
  EXPECT_EQ(info.preprocess_digest_with(3136, {}), info.preprocess_digest);
  PreprocessorConfig changed = info.preprocessor;
  changed.min_pixels = 6272;
  EXPECT_EQ(info.preprocess_digest_with(6272, {}), changed.digest());
  changed.max_pixels = 12544;
  EXPECT_EQ(info.preprocess_digest_with(6272, 12544), changed.digest());
}

TEST(VisionInfo, WhatIsNoJsonIsRefused) {
  for (const std::string_view text : {"", "{", "[]", "7", "\"vision.info\"", "{}", "<html>"})
    EXPECT_FALSE(parse_vision_info(text, "info")) << text;
}

}  // namespace
}  // namespace chiasm
