// multipart/form-data (RFC 7578), parsed from a body held in memory.
//
// Thread contract: a pure function; parts are views into the body.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

struct FormPart {
  std::string name;
  std::string file_name;     // empty where none was given
  std::string content_type;  // empty where none was given
  std::string_view bytes;
};

// `content_type` is the request's header, with its boundary. kInvalidArgument for anything malformed, more than
// `max_parts` parts, or a part without a name.
Result<std::vector<FormPart>> parse_multipart(std::string_view content_type, std::string_view body,
                                              std::size_t max_parts = 16);

}  // namespace chiasm
