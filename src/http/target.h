// The target of a request ("/v1/features/a%20b?x=1") taken apart and percent-decoded.
//
// Thread contract: a pure function.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace chiasm {

struct Target {
  std::string path;                   // "/v1/features/a b"
  std::vector<std::string> segments;  // {"v1", "features", "a b"}; "/" has one, which is empty
  std::vector<std::pair<std::string, std::string>> query;
};

// Origin form, or absolute form of which the authority is dropped (RFC 9112, section 3.2). kInvalidArgument for a
// malformed escape, control characters, an encoded slash, segments "." and "..", so that a capture is never a way up.
Result<Target> parse_target(std::string_view text);

}  // namespace chiasm
