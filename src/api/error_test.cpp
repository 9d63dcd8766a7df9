#include "api/error.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "api/private_text.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

constexpr ErrorKind kKinds[] = {
    ErrorKind::kInvalidRequest, ErrorKind::kUnsupported, ErrorKind::kContextLength,  ErrorKind::kUnauthorized,
    ErrorKind::kForbidden,      ErrorKind::kNotFound,    ErrorKind::kMethod,         ErrorKind::kTimeout,
    ErrorKind::kModelMismatch,  ErrorKind::kTooLarge,    ErrorKind::kHeaderTooLarge, ErrorKind::kRateLimited,
    ErrorKind::kCancelled,      ErrorKind::kInternal,    ErrorKind::kOverloaded,     ErrorKind::kVisionUnavailable,
    ErrorKind::kDeadline};

TEST(Error, TheTable) {
  struct Row {
    ErrorKind kind;
    int status;
    std::string type;
    std::optional<std::string> code;
    int retry_after;
  };
  const std::string request = "invalid_request_error", server = "server_error";
  const Row rows[] = {{ErrorKind::kInvalidRequest, 400, request, {}, 0},
                      {ErrorKind::kUnsupported, 400, request, "unsupported_parameter", 0},
                      {ErrorKind::kContextLength, 400, request, "context_length_exceeded", 0},
                      {ErrorKind::kUnauthorized, 401, request, "invalid_api_key", 0},
                      {ErrorKind::kForbidden, 403, request, "permission_denied", 0},
                      {ErrorKind::kNotFound, 404, request, "not_found", 0},
                      {ErrorKind::kMethod, 405, request, "method_not_supported", 0},
                      {ErrorKind::kTimeout, 408, request, "request_timeout", 0},
                      {ErrorKind::kModelMismatch, 409, request, "model_mismatch", 0},
                      {ErrorKind::kTooLarge, 413, request, "request_too_large", 0},
                      {ErrorKind::kHeaderTooLarge, 431, request, "header_too_large", 0},
                      {ErrorKind::kRateLimited, 429, "requests", "rate_limit_exceeded", 1},
                      {ErrorKind::kCancelled, 499, request, "request_cancelled", 0},
                      {ErrorKind::kInternal, 500, server, {}, 0},
                      {ErrorKind::kOverloaded, 503, server, "overloaded", 1},
                      {ErrorKind::kVisionUnavailable, 503, server, "vision_unavailable", 5},
                      {ErrorKind::kDeadline, 504, server, "deadline_exceeded", 0}};
  ASSERT_EQ(std::size(rows), std::size(kKinds));
  for (const Row& row : rows) {
    EXPECT_EQ(http_status(row.kind), row.status);
    EXPECT_EQ(error_type(row.kind), row.type) << row.status;
    EXPECT_EQ(error_code(row.kind), row.code) << row.status;
    EXPECT_EQ(retry_after_seconds(row.kind), row.retry_after) << row.status;
    // A client must not be told both to come back later and never to come back.
    EXPECT_TRUE(row.retry_after == 0 || is_repeatable(row.kind)) << row.status;
    EXPECT_TRUE(row.status >= 500 || row.status == 408 || row.status == 429 || !is_repeatable(row.kind)) << row.status;
  }
  EXPECT_FALSE(is_repeatable(ErrorKind::kModelMismatch));
  EXPECT_FALSE(is_repeatable(ErrorKind::kDeadline));
}

TEST(Error, ObjectsAreSpelledAsOpenAiSpellsThem) {
  EXPECT_EQ(error_json({ErrorKind::kUnauthorized, "Incorrect API key provided.", {}}),
            R"({"error":{"message":"Incorrect API key provided.","type":"invalid_request_error","param":null,)"
            R"("code":"invalid_api_key"}})");
  EXPECT_EQ(error_json({ErrorKind::kInvalidRequest, "say \"hi\"\n", "messages[0].content"}),
            R"({"error":{"message":"say \"hi\"\n","type":"invalid_request_error","param":"messages[0].content",)"
            R"("code":null}})");
  EXPECT_EQ(error_json({ErrorKind::kInternal, "", {}}),
            R"({"error":{"message":"The server failed on this request.","type":"server_error","param":null,)"
            R"("code":null}})");
  EXPECT_THAT(error_json({ErrorKind::kNotFound, "x", "model"}), HasSubstr(R"("code":"model_not_found")"));
  EXPECT_THAT(error_json({ErrorKind::kNotFound, "x", "id"}), HasSubstr(R"("code":"not_found")"));
}

TEST(Error, BytesThatAreNoTextDoNotThrow) {
  const std::string json = error_json({ErrorKind::kInvalidRequest, "a\xFF\x80z", "p\xC3"});
  EXPECT_TRUE(is_utf8(json));
  EXPECT_THAT(json, HasSubstr("a\xEF\xBF\xBD"));
  EXPECT_EQ(json.find('\n'), std::string::npos);
}

TEST(Error, KindOfStatus) {
  for (const ErrorKind kind : kKinds) {
    const ErrorKind back = kind_of_status(http_status(kind));
    EXPECT_EQ(http_status(back), http_status(kind));
  }
  EXPECT_EQ(kind_of_status(400), ErrorKind::kInvalidRequest);
  EXPECT_EQ(kind_of_status(414), ErrorKind::kHeaderTooLarge);
  EXPECT_EQ(kind_of_status(503), ErrorKind::kOverloaded);
  EXPECT_EQ(kind_of_status(418), ErrorKind::kInvalidRequest);
  EXPECT_EQ(kind_of_status(502), ErrorKind::kInternal);
  EXPECT_EQ(kind_of_status(200), ErrorKind::kInternal);
}

TEST(Error, EveryCodeHasItsKind) {
  const std::tuple<Code, ErrorKind, bool> rows[] = {{Code::kInvalidArgument, ErrorKind::kInvalidRequest, true},
                                                    {Code::kNotFound, ErrorKind::kNotFound, true},
                                                    {Code::kFailedPrecondition, ErrorKind::kModelMismatch, true},
                                                    {Code::kUnimplemented, ErrorKind::kUnsupported, true},
                                                    {Code::kResourceExhausted, ErrorKind::kOverloaded, false},
                                                    {Code::kUnavailable, ErrorKind::kOverloaded, false},
                                                    {Code::kDeadlineExceeded, ErrorKind::kDeadline, false},
                                                    {Code::kCancelled, ErrorKind::kCancelled, false},
                                                    {Code::kDataLoss, ErrorKind::kInternal, false},
                                                    {Code::kInternal, ErrorKind::kInternal, false}};
  for (const auto& [code, kind, kept] : rows) {
    const ApiError error = api_error({code, "expected a picture, got a song"}, "messages[0]");
    EXPECT_EQ(error.kind, kind) << code_name(code);
    EXPECT_EQ(error.param, "messages[0]");
    EXPECT_EQ(error.message == "expected a picture, got a song", kept) << code_name(code) << ": " << error.message;
    EXPECT_FALSE(error.message.empty());
  }
}

TEST(Error, MessagesWithPathsAndAddressesDoNotReachClients) {
  for (const std::string secret : {"/var/lib/chiasm/config.json: field 'a': expected a number",
                                   "cannot open '/etc/passwd'",
                                   "in (/tmp/x)",
                                   "file=/srv/models/a",
                                   "models/toytown/model.safetensors: truncated",
                                   "./config.json: is absent",
                                   "../up/x: is absent",
                                   "~/models: is absent",
                                   "weights/model.bin is damaged",
                                   "C:\\models\\x is absent",
                                   "http://host-a:9001/v1/info: refused",
                                   "no route to 10.1.2.3",
                                   "10.0.0.7:9001 refused",
                                   "at 192.168.1.1.",
                                   "::1 refused",
                                   "[::1]:8080 refused",
                                   "fe80::1%eth0 refused",
                                   "peer 2001:db8::8:800:200c:417a",
                                   "host-a:9001: connection refused",
                                   "localhost:8080 refused",
                                   "listen on :8080",
                                   "port 8080 is taken",
                                   "ports 80 and 443",
                                   "Port: 9001",
                                   "\"/opt/x\"",
                                   "path:/opt/x",
                                   "see a/b/c",
                                   "unix:/run/x.sock"}) {
    EXPECT_TRUE(holds_private_text(secret)) << secret;
    for (const Code code : {Code::kInvalidArgument, Code::kNotFound, Code::kFailedPrecondition, Code::kUnimplemented}) {
      const ApiError error = api_error({code, secret}, "p");
      EXPECT_NE(error.message, secret);
      EXPECT_FALSE(holds_private_text(error.message)) << error.message;
      EXPECT_EQ(error.param, "p");
    }
  }
}

TEST(Error, MessagesAboutTheRequestReachClients) {
  for (const std::string message :
       {"expected a data URI of image/png or image/jpeg, got image/tiff.", "top_p: expected a number, got 2",
        "JPEG: expected at most 100 pixels, the header says 20000 x 20000 = 400000000",
        "feature 0123abcd: vision digest 5e884898 is not the checkpoint's 1f3870be", "rows: expected 12, got 11",
        "messages[0].content[1]: expected text", "1/2 of the frames", "version 1.0 or 2.0", "12 GiB and 1.5 MB",
        "expected application/octet-stream", "the ratio 3:a", "portrait 3 of 4", "a / b", "[2, 3] against [3, 2]",
        "npy: expected a file of numpy.save", "model.layers.0.weight has no values"}) {
    EXPECT_FALSE(holds_private_text(message)) << message;
    EXPECT_EQ(api_error({Code::kInvalidArgument, message}).message, message);
  }
  EXPECT_FALSE(holds_private_text(""));
  const std::string endless(5000, 'x');
  EXPECT_NE(api_error({Code::kInvalidArgument, endless}).message, endless);
}

TEST(Error, TextsOfOurOwnHoldNothingPrivate) {
  for (const ErrorKind kind : kKinds) {
    const auto json = nlohmann::json::parse(error_json({kind, "", {}}));
    const std::string message = json["error"]["message"];
    EXPECT_FALSE(message.empty());
    EXPECT_FALSE(holds_private_text(message)) << message;
  }
}

}  // namespace
}  // namespace chiasm
