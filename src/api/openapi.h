// GET /openapi.json: what the servers take and give, as an OpenAPI 3.1 document.
//
// Requests are described from the tables that the parser reads by, so the two cannot part; what a server registers is
// compared with openapi_routes() by a test beside it. Thread contract: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/chat_request.h"

namespace chiasm {

// Of both servers and of the single process, which has the language server's routes.
std::string openapi_json(std::string_view version, const RequestLimits& limits = {});

// {"POST", "/v1/ask"}, ... of the servers with this tag, "language" or "vision"; of all where it is empty. Each route
// once.
std::vector<std::pair<std::string, std::string>> openapi_routes(std::string_view tag = {});

}  // namespace chiasm
