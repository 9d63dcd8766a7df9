// What a client is told when something went wrong: the one table from a kind of error to HTTP status and error object.
//
// Messages reach clients as they are, so they hold no paths, addresses or library texts: an Error from below becomes an
// ApiError through api_error(), which keeps the message of the codes that are about the request and replaces the rest.
// Thread contract: plain values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chiasm {

enum class ErrorKind : std::uint8_t {
  kInvalidRequest,     // 400
  kUnsupported,        // 400, code "unsupported_parameter"
  kContextLength,      // 400, code "context_length_exceeded"
  kUnauthorized,       // 401, code "invalid_api_key"
  kForbidden,          // 403
  kNotFound,           // 404
  kMethod,             // 405
  kTimeout,            // 408
  kModelMismatch,      // 409, code "model_mismatch"
  kTooLarge,           // 413
  kMediaType,          // 415
  kHeaderTooLarge,     // 431
  kRateLimited,        // 429, Retry-After
  kCancelled,          // 499, the client left: for logs
  kInternal,           // 500
  kOverloaded,         // 503, Retry-After
  kVisionUnavailable,  // 503, Retry-After
  kDeadline,           // 504
};

struct ApiError {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
  std::string param;  // the request's field, "messages[0].content[1].image_url"; empty: none
};

template <class T>
using ApiResult = tl::expected<T, ApiError>;

int http_status(ErrorKind kind);
std::string_view error_type(ErrorKind kind);                 // "invalid_request_error", ...
std::optional<std::string_view> error_code(ErrorKind kind);  // "invalid_api_key", ...; nullopt: null in the JSON
int retry_after_seconds(ErrorKind kind);                     // 0: no such header
// Whether the same request may do better later. The SDKs repeat 408, 409, 429 and 5xx on their own unless the answer
// has "x-should-retry: false": it belongs on a 409 or 504 of ours, which stay what they are.
bool is_repeatable(ErrorKind kind);

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string error_json(const ApiError& error);

// The kind that an HTTP server's own status stands for (404, 405, 408, 413, 414, 431, 500, 503).
ErrorKind kind_of_status(int status);

// From an error of the layers below. `param` names the request's field that the work was about.
ApiError api_error(const Error& error, std::string param = {});

}  // namespace chiasm
