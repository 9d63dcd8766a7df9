// Base64 (RFC 4648), read strictly.
//
// Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chiasm {

// The standard alphabet with padding; '-' and '_' are taken for '+' and '/' too, padding may be absent. Line ends,
// other characters, bits that are not zero behind the end: kInvalidArgument, saying where.
Result<std::string> decode_base64(std::string_view text);
std::string encode_base64(std::span<const std::byte> bytes);

}  // namespace chiasm
