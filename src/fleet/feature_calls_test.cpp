#include "fleet/feature_calls.h"

#include <gtest/gtest.h>

#include "fleet/test_fleet.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;

const FeatureKey kKey = key_of(sample_info(), "picture");

TEST(FeatureCalls, Targets) {
  EXPECT_EQ(encode_target({}, {}), "/v1/features");
  EXPECT_EQ(encode_target(3136, {}), "/v1/features?min_pixels=3136");
  EXPECT_EQ(encode_target({}, 12544), "/v1/features?max_pixels=12544");
  EXPECT_EQ(encode_target(3136, 12544), "/v1/features?min_pixels=3136&max_pixels=12544");
  EXPECT_EQ(feature_target(kKey.id), "/v1/features/" + kKey.id.hex());
}

TEST(FeatureCalls, OneFileIsTheBodyItself) {
  const auto file = bytes_of("picture");
  const FileBytes files{&file, 1};
  EXPECT_EQ(encode_body_size(kKey.id, files), 7U);
  EXPECT_EQ(encode_content_type(kKey.id, files), "application/octet-stream");
}

TEST(FeatureCalls, FramesAreParts) {
  const std::string second("\0\r\n--", 5);
  const std::vector<std::span<const std::byte>> files = {bytes_of("first"), bytes_of(second), {}};
  const std::string mark = "--" + kKey.id.hex();
  std::string expected;
  for (const auto& [index, bytes] : {std::pair{"0", std::string("first")}, {"1", second}, {"2", std::string()}})
    expected += fmt::format(
        "{}\r\nContent-Disposition: form-data; name=\"frame\"; filename=\"frame-{}\"\r\n"
        "Content-Type: application/octet-stream\r\n\r\n{}\r\n",
        mark, index, bytes);
  expected += mark + "--\r\n";
  EXPECT_EQ(join_frames(kKey.id, files), expected);
  EXPECT_EQ(encode_body_size(kKey.id, files), expected.size());
  EXPECT_EQ(encode_content_type(kKey.id, files), "multipart/form-data; boundary=" + kKey.id.hex());
}

TEST(FeatureCalls, TenantsMustFitAHeader) {
  for (const std::string& good :
       {std::string(), std::string("acme"), std::string("a b"), std::string("caf\xc3\xa9"), std::string(256, 'x')})
    EXPECT_TRUE(check_tenant(good)) << good;
  for (const std::string& bad : {std::string("a\r\nX: y"), std::string("a\tb"), std::string(1, '\0'), std::string(" a"),
                                 std::string("a "), std::string(257, 'x'), std::string("\x7f")}) {
    const Status status = check_tenant(bad);
    ASSERT_FALSE(status) << bad;
    EXPECT_EQ(status.error().code, Code::kInvalidArgument);
  }
}

TEST(FeatureCalls, RetryAfterInSeconds) {
  const auto read = [](const std::string& value) { return retry_after({{"retry-after", value}}); };
  EXPECT_EQ(read("5"), 5s);
  EXPECT_EQ(read("0"), 0s);
  EXPECT_EQ(read("99999999999999999999"), std::chrono::seconds(UINT32_MAX));
  for (const auto* text : {"", "-1", "1.5", "5 s", "Wed, 21 Oct 2026 07:28:00 GMT"})
    EXPECT_EQ(read(text), std::nullopt) << text;
  EXPECT_EQ(retry_after({}), std::nullopt);
}

TEST(FeatureCalls, ErrorMessagesAreTakenFromTheErrorObject) {
  EXPECT_EQ(error_message(R"({"error":{"message":"not a picture"}})"), "not a picture");
  EXPECT_EQ(error_message(R"({"error":{"message":"a\r\nb\u0000c"}})"), "a??b?c");
  for (const auto* text : {"", "<html>", "{}", "[]", R"({"error":"x"})", R"({"error":{"message":7}})"})
    EXPECT_EQ(error_message(text), "") << text;
  const std::string endless(1000, 'x');
  EXPECT_EQ(error_message(R"({"error":{"message":")" + endless + "\"}}").size(), 400U);
  EXPECT_EQ(error_message(R"({"error":{"message":")" + std::string(100'000, 'x') + "\"}}"), "");
}

TEST(FeatureCalls, OneLineKeepsCharactersWhole) {
  EXPECT_EQ(one_line("caf\xc3\xa9", 100), "caf\xc3\xa9");
  EXPECT_EQ(one_line("caf\xc3\xa9", 4), "caf");
  EXPECT_EQ(one_line("caf\xe9", 100), "caf?");
  EXPECT_EQ(one_line("a\nb\x1b[31m", 100), "a?b?[31m");
  EXPECT_EQ(one_line("", 0), "");
}

TEST(FeatureCalls, WhatAnAnswerMeans) {
  struct Case {
    int status;
    Verdict encode, feature, info;
  };
  using enum Verdict;
  for (const auto& [status, encode, feature, info] : std::vector<Case>{
           {200, kGood, kGood, kGood},
           {204, kGood, kGood, kGood},
           {301, kFailed, kFailed, kFailed},
           {400, kRefused, kFailed, kFailed},
           {401, kFailed, kFailed, kFailed},
           {403, kFailed, kFailed, kFailed},
           {404, kFailed, kAbsent, kFailed},
           {409, kMismatch, kMismatch, kFailed},
           {413, kRefused, kFailed, kFailed},
           {415, kRefused, kFailed, kFailed},
           {422, kRefused, kFailed, kFailed},
           {429, kOverloaded, kOverloaded, kOverloaded},
           {500, kFailed, kFailed, kFailed},
           {502, kFailed, kFailed, kFailed},
           {503, kOverloaded, kOverloaded, kOverloaded},
           {504, kFailed, kFailed, kFailed},
       }) {
    EXPECT_EQ(judge(error_answer(status), Asked::kEncode, false).verdict, encode) << status;
    EXPECT_EQ(judge(error_answer(status), Asked::kFeature, false).verdict, feature) << status;
    EXPECT_EQ(judge(error_answer(status), Asked::kInfo, false).verdict, info) << status;
  }
}

TEST(FeatureCalls, AHastyCallerIsNotTheServersFault) {
  for (const int status : {408, 504}) {
    EXPECT_EQ(judge(error_answer(status), Asked::kEncode, true).verdict, Verdict::kLate);
    EXPECT_EQ(judge(error_answer(status), Asked::kEncode, false).verdict, Verdict::kFailed);
  }
  const Result<HttpResponse> late = fail(Code::kDeadlineExceeded, "10.0.0.1: late");
  EXPECT_EQ(judge(late, Asked::kEncode, true).verdict, Verdict::kGivenUp);
  EXPECT_EQ(judge(late, Asked::kEncode, true).error.code, Code::kDeadlineExceeded);
  EXPECT_EQ(judge(late, Asked::kEncode, true).error.message.find("10.0.0.1"), std::string::npos);
  EXPECT_EQ(judge(late, Asked::kEncode, false).verdict, Verdict::kFailed);
}

TEST(FeatureCalls, WhatNoAnswerMeans) {
  const auto of = [](Code code) { return judge(Result<HttpResponse>(fail(code, "x")), Asked::kEncode, true).verdict; };
  EXPECT_EQ(of(Code::kUnavailable), Verdict::kFailed);
  EXPECT_EQ(of(Code::kDataLoss), Verdict::kFailed);
  EXPECT_EQ(of(Code::kResourceExhausted), Verdict::kFailed);
  EXPECT_EQ(of(Code::kCancelled), Verdict::kGivenUp);
}

TEST(FeatureCalls, TheRefusalIsInTheServersWords) {
  EXPECT_EQ(judge(error_answer(400, "not a picture"), Asked::kEncode, false).error.message, "not a picture");
  EXPECT_EQ(judge(error_answer(400, "not a picture"), Asked::kEncode, false).error.code, Code::kInvalidArgument);
  EXPECT_EQ(judge(HttpResponse::text(413, "x"), Asked::kEncode, false).error.message,
            "the vision server refused the picture with HTTP 413");
  EXPECT_EQ(judge(busy_answer(503, "7"), Asked::kEncode, false).retry_after, 7s);
}

TEST(FeatureCalls, SourcesAreOursOrUnknown) {
  for (const auto* source : {"encoded", "memory", "disk"})
    EXPECT_EQ(feature_source({{"x-feature-source", source}}), source);
  EXPECT_EQ(feature_source({{"X-Feature-Source", "<script>"}}), "unknown");
  EXPECT_EQ(feature_source({}), "unknown");
}

TEST(FeatureCalls, AFeatureOfAnotherEncoderIsToldFromDamage) {
  FeatureExpectations expected = FeatureExpectations::of(kKey);
  expected.width = 8;
  expected.merge = 2;
  EXPECT_TRUE(read_feature(file_of(feature_of(kKey)), expected, kMaxFeatureFile));

  // Another model has another width too; what is said is the digest.
  const FeatureKey other = key_of(sample_info("other vision"), "picture");
  const auto foreign = read_feature(file_of(feature_of(other, 16)), expected, kMaxFeatureFile);
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().code, Code::kFailedPrecondition);
  EXPECT_NE(foreign.error().message.find(kKey.vision_digest.hex()), std::string::npos);
  EXPECT_NE(foreign.error().message.find(other.vision_digest.hex()), std::string::npos);

  for (const FeatureKey& key : {key_of(sample_info(), "other picture"), key_of(sample_info(), "picture", "tenant"),
                                key_of(sample_info(), "picture", "", 6272)}) {
    const auto wrong = read_feature(file_of(feature_of(key)), expected, kMaxFeatureFile);
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().code, Code::kDataLoss) << wrong.error().message;
  }
  expected.merge = 4;
  const auto shape = read_feature(file_of(feature_of(kKey)), expected, kMaxFeatureFile);
  ASSERT_FALSE(shape);
  EXPECT_EQ(shape.error().code, Code::kDataLoss) << shape.error().message;
}

}  // namespace
}  // namespace chiasm
