// What every route answers with: JSON, error objects, and the id under which logs speak of a request.
//
// Thread contract: pure functions; an Exchange belongs to its handler's thread.
#pragma once

#include <string>

#include "api/error.h"
#include "http/server.h"

namespace chiasm {

void reply_json(Exchange& exchange, std::string json, int status = 200);
// The error object, with Retry-After where its kind has one.
// A body that says it is something else is refused, or any page could make a browser post to a server without keys
// (types that forms can have need no preflight). One that says nothing is read.
bool is_json(const HttpRequest& request);
ApiError not_json();

void reply_error(Exchange& exchange, const ApiError& error);
HttpResponse error_response(const ApiError& error);

// "PREFIX-" and 24 random hexadecimal digits.
std::string new_request_id(std::string_view prefix);

// Seconds since the epoch, for `created`.
std::int64_t unix_time();

}  // namespace chiasm
