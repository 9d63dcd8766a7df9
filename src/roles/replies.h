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
void reply_error(Exchange& exchange, const ApiError& error);
HttpResponse error_response(const ApiError& error);

// "PREFIX-" and 24 random hexadecimal digits.
std::string new_request_id(std::string_view prefix);

// Seconds since the epoch, for `created`.
std::int64_t unix_time();

}  // namespace chiasm
