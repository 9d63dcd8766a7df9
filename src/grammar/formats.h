// The values of the keyword `format` that are enforced, as regular expressions.
//
// Thread contract: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chiasm {

// date, time, date-time, duration (RFC 3339), uuid, email (the usual addresses), hostname, ipv4, ipv6. Nothing for any
// other: an annotation, as the standard has it.
std::optional<std::string> format_pattern(std::string_view format);

}  // namespace chiasm
