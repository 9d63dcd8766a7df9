// The schemas of /openapi.json: requests from the parser's table, answers as api/chat_response.h writes them.
//
// Thread contract: a pure function.
#pragma once

#include <string>

#include "api/chat_request.h"

namespace chiasm {

// "components.schemas" as JSON text.
std::string openapi_schemas(const RequestLimits& limits);

}  // namespace chiasm
