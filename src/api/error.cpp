#include "api/error.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "api/private_text.h"

namespace chiasm {
namespace {

constexpr std::size_t kLongestMessage = 2000;

struct Row {
  ErrorKind kind;
  int status;
  std::string_view type, code;  // code: "" is null
  int retry_after;
  bool repeatable;           // whether the same request may do better later
  std::string_view message;  // where the original must not be shown
};

// Types and codes are OpenAI's own where it has them: an unknown key, for one, is an invalid_request_error with code
// invalid_api_key. What the SDKs raise follows from the status alone.
constexpr std::string_view kRequest = "invalid_request_error", kServer = "server_error";
constexpr std::array<Row, 18> kTable = {{
    {ErrorKind::kInvalidRequest, 400, kRequest, "", 0, false, "The request cannot be answered as it is."},
    {ErrorKind::kUnsupported, 400, kRequest, "unsupported_parameter", 0, false,
     "The request asks for something that is not supported here."},
    {ErrorKind::kContextLength, 400, kRequest, "context_length_exceeded", 0, false,
     "The request has more tokens than the model's context takes."},
    {ErrorKind::kUnauthorized, 401, kRequest, "invalid_api_key", 0, false,
     "A valid API key is needed: Authorization: Bearer KEY."},
    {ErrorKind::kForbidden, 403, kRequest, "permission_denied", 0, false, "This is not allowed."},
    {ErrorKind::kNotFound, 404, kRequest, "not_found", 0, false, "There is nothing of this name here."},
    {ErrorKind::kMethod, 405, kRequest, "method_not_supported", 0, false, "This path does not take this method."},
    {ErrorKind::kTimeout, 408, kRequest, "request_timeout", 0, true, "The request did not arrive in time."},
    {ErrorKind::kModelMismatch, 409, kRequest, "model_mismatch", 0, false,
     "The features are not of this model's vision encoder."},
    {ErrorKind::kTooLarge, 413, kRequest, "request_too_large", 0, false, "The request is too large."},
    {ErrorKind::kMediaType, 415, kRequest, "unsupported_media_type", 0, false,
     "The body is not of a type that is read here."},
    {ErrorKind::kHeaderTooLarge, 431, kRequest, "header_too_large", 0, false, "The request's headers are too large."},
    {ErrorKind::kRateLimited, 429, "requests", "rate_limit_exceeded", 1, true,
     "Too many requests at once. Try again shortly."},
    {ErrorKind::kCancelled, 499, kRequest, "request_cancelled", 0, false, "The client left before the answer."},
    {ErrorKind::kInternal, 500, kServer, "", 0, true, "The server failed on this request."},
    {ErrorKind::kOverloaded, 503, kServer, "overloaded", 1, true,
     "The server has as much work as it takes. Try again shortly."},
    {ErrorKind::kVisionUnavailable, 503, kServer, "vision_unavailable", 5, true,
     "No vision encoder answers at the moment; pictures that are already known still work."},
    {ErrorKind::kDeadline, 504, kServer, "deadline_exceeded", 0, false, "The request's time is over."},
}};

const Row& row_of(ErrorKind kind) {
  const auto* const row = std::find_if(kTable.begin(), kTable.end(), [&](const Row& one) { return one.kind == kind; });
  return row != kTable.end() ? *row : row_of(ErrorKind::kInternal);
}

ErrorKind kind_of(Code code) {
  switch (code) {
    case Code::kInvalidArgument: return ErrorKind::kInvalidRequest;
    case Code::kNotFound: return ErrorKind::kNotFound;
    case Code::kFailedPrecondition: return ErrorKind::kModelMismatch;
    // A limit of one request is told where it is checked; what is left is memory, pools and queues.
    case Code::kResourceExhausted:
    case Code::kUnavailable: return ErrorKind::kOverloaded;
    case Code::kUnimplemented: return ErrorKind::kUnsupported;
    case Code::kDeadlineExceeded: return ErrorKind::kDeadline;
    case Code::kCancelled: return ErrorKind::kCancelled;
    case Code::kDataLoss:
    case Code::kInternal: return ErrorKind::kInternal;
  }
  return ErrorKind::kInternal;
}

// The kinds whose message says something about the request, and so to its sender.
bool about_the_request(ErrorKind kind) {
  return kind == ErrorKind::kInvalidRequest || kind == ErrorKind::kNotFound || kind == ErrorKind::kModelMismatch ||
         kind == ErrorKind::kUnsupported;
}

}  // namespace

int http_status(ErrorKind kind) { return row_of(kind).status; }
std::string_view error_type(ErrorKind kind) { return row_of(kind).type; }
int retry_after_seconds(ErrorKind kind) { return row_of(kind).retry_after; }
bool is_repeatable(ErrorKind kind) { return row_of(kind).repeatable; }

std::optional<std::string_view> error_code(ErrorKind kind) {
  const Row& row = row_of(kind);
  return row.code.empty() ? std::nullopt : std::optional(row.code);
}

std::string error_json(const ApiError& error) {
  const auto code = error.kind == ErrorKind::kNotFound && error.param == "model"
                        ? std::optional<std::string_view>("model_not_found")
                        : error_code(error.kind);
  nlohmann::ordered_json object;
  object["message"] = error.message.empty() ? std::string(row_of(error.kind).message) : error.message;
  object["type"] = error_type(error.kind);
  object["param"] = error.param.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(error.param);
  object["code"] = code ? nlohmann::ordered_json(*code) : nlohmann::ordered_json();
  return nlohmann::ordered_json{{"error", std::move(object)}}.dump(-1, ' ', false,
                                                                   nlohmann::ordered_json::error_handler_t::replace);
}

ErrorKind kind_of_status(int status) {
  if (status == 414) return ErrorKind::kHeaderTooLarge;  // of the request line, and that is part of the header
  if (status == 503) return ErrorKind::kOverloaded;
  if (status != 400)
    for (const Row& row : kTable)
      if (row.status == status) return row.kind;
  return status >= 400 && status < 500 ? ErrorKind::kInvalidRequest : ErrorKind::kInternal;
}

ApiError api_error(const Error& error, std::string param) {
  const ErrorKind kind = kind_of(error.code);
  const bool shown = about_the_request(kind) && !error.message.empty() && error.message.size() <= kLongestMessage &&
                     !holds_private_text(error.message);
  return {kind, shown ? error.message : std::string(row_of(kind).message), std::move(param)};
}

}  // namespace chiasm
