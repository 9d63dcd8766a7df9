// One field of a request and where it stands: typed reads whose errors name the field and what came.
//
// Thread contract: a FieldValue is a view into its Json; plain functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/error.h"
#include "base/json.h"

namespace chiasm {

using ApiStatus = ApiResult<void>;

struct FieldValue {
  JsonValue value;
  std::string path;  // "messages[0].content", as errors name it in `param`

  // The value as an error shows it: a short string or number itself, otherwise what kind it is.
  std::string shown() const;

  ApiResult<std::string_view> string() const;
  ApiResult<std::string_view> text() const;  // a string that is not empty
  ApiResult<bool> boolean() const;
  // 3.0 is the integer 3, as in JSON Schema.
  ApiResult<std::int64_t> integer(std::int64_t low, std::int64_t high) const;
  // `above`: `low` itself is refused.
  ApiResult<double> number(double low, double high, bool above = false) const;

  // At most `limit` of them, which is checked before anything is allocated. `what`: "a list of strings".
  ApiResult<std::vector<FieldValue>> elements(std::size_t limit, std::string_view what) const;
  // A member that comes twice is an error. Members that are null are left out: for every field here null is absent.
  ApiResult<std::vector<std::pair<std::string_view, FieldValue>>> members(std::string_view what) const;

  FieldValue member(std::string_view name, JsonValue of) const;
};

// "PATH: MESSAGE" with PATH as param; an empty path is left out of both.
tl::unexpected<ApiError> refuse(ErrorKind kind, const std::string& path, std::string_view message);

template <class... Args>
[[nodiscard]] tl::unexpected<ApiError> invalid(const std::string& path, fmt::format_string<Args...> format,
                                               Args&&... args) {
  return refuse(ErrorKind::kInvalidRequest, path, fmt::format(format, std::forward<Args>(args)...));
}

// The parsed body's root, which must be an object.
ApiResult<Json> parse_body(std::string_view body, std::size_t depth);

// "expected WHAT, got ..."
tl::unexpected<ApiError> expected(const FieldValue& field, std::string_view what);

}  // namespace chiasm

// API_ASSIGN(const double value, field.number(0, 2));
#define API_ASSIGN(lhs, expr) API_ASSIGN_(CHIASM_CONCAT(api_result_, __LINE__), lhs, expr)
#define API_ASSIGN_(tmp, lhs, expr)                        \
  auto tmp = (expr);                                       \
  if (!tmp) return tl::unexpected(std::move(tmp).error()); \
  lhs = std::move(*tmp)

#define API_CHECK(expr)                                              \
  do {                                                               \
    auto status_ = (expr);                                           \
    if (!status_) return tl::unexpected(std::move(status_).error()); \
  } while (0)
