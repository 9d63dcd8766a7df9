#include "roles/replies.h"

#include <chrono>
#include <utility>

#include "base/secret.h"

namespace chiasm {

void reply_json(Exchange& exchange, std::string json, int status) {
  exchange.respond(HttpResponse::json(status, std::move(json)));
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse out = HttpResponse::json(http_status(error.kind), error_json(error));
  if (const int seconds = retry_after_seconds(error.kind); seconds > 0)
    out.headers.set("Retry-After", std::to_string(seconds));
  // The SDKs repeat 408, 409, 429 and 5xx on their own; some of ours stay what they are.
  if (out.status != 400 && !is_repeatable(error.kind)) out.headers.set("x-should-retry", "false");
  if (error.kind == ErrorKind::kUnauthorized) out.headers.set("WWW-Authenticate", "Bearer");
  return out;
}

bool is_json(const HttpRequest& request) {
  return (!request.headers.find("Content-Type") || has_media_type(request, "application/json")) &&
         !request.headers.find("Content-Encoding");
}

ApiError not_json() {
  return {ErrorKind::kMediaType, "Expected a body of Content-Type: application/json, without a Content-Encoding.", {}};
}

void reply_error(Exchange& exchange, const ApiError& error) { exchange.respond(error_response(error)); }

std::string new_request_id(std::string_view prefix) { return std::string(prefix) + "-" + random_hex(24); }

std::int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace chiasm
