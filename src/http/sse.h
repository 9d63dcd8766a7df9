// Server-sent events (WHATWG HTML, section 9.2), the writing side.
//
// Thread contract: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "http/message.h"

namespace chiasm {

Headers sse_headers();                               // content type, no caching, no proxy buffering
std::string sse_data(std::string_view one_line);     // "data: …\n\n"
std::string sse_comment(std::string_view one_line);  // ": …\n\n", which clients ignore

}  // namespace chiasm
