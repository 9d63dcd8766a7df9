// The Accept header: what a client would like to get (RFC 9110, section 12.5.1). Thread contract: a pure function.
#pragma once

#include <string_view>

namespace chiasm {

// The largest weight that `accept` gives to this very media type, 0 to 1; 1 where a weight cannot be read, -1 where the
// type is not named. Ranges (*/*) name no type.
double accept_weight(std::string_view accept, std::string_view type);

}  // namespace chiasm
