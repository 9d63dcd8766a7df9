// The one table of the fields that requests may have: read from it, checked by it, and described by it in
// /openapi.json.
//
// A field that is in neither table is ignored. Thread contract: constant tables, pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "api/request_draft.h"

namespace chiasm {

// Which requests have a field; one bit each.
enum RequestKind : std::uint8_t { kChatRequest = 1, kAskRequest = 2, kUploadRequest = 4 };

struct RequestField {
  enum class Type : std::uint8_t { kString, kBool, kInteger, kNumber, kStructured };

  std::string_view name;
  std::uint8_t in;           // RequestKinds
  std::uint8_t required_in;  // RequestKinds
  Type type;
  double low, high;  // kInteger, kNumber: inclusive, but for a `low` that must be exceeded
  bool above_low;
  ApiStatus (*read)(const FieldValue& value, const RequestField& field, RequestDraft& draft);
  std::string_view about;  // for /openapi.json
};

std::span<const RequestField> request_fields();

// The upper end of a range that the server's limits set instead of the table.
double highest(const RequestField& field, const RequestLimits& limits);

// Fields that would change the answer and that are not supported: refused unless they say what happens anyway.
struct RefusedField {
  std::string_view name;
  std::uint8_t in;            // RequestKinds
  std::string_view harmless;  // JSON texts with '|' between
};
std::span<const RefusedField> refused_fields();

// Reads every field of a body and checks what spans several of them.
ApiResult<RequestDraft> read_request(std::string_view body, RequestKind kind, const RequestLimits& limits);

}  // namespace chiasm
