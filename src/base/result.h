// Result<T>: how a function that can fail answers, and the canonical error codes.
//
// The message says what was expected and what came, so that it can be shown to a user as it is.
// CHECK (check.h) is for our own bugs; nothing from outside may reach one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <tl/expected.hpp>

namespace chiasm {

enum class Code : std::uint8_t {
  kInvalidArgument,     // the caller's input is wrong and will stay wrong
  kNotFound,            // a file, tensor, field or feature is absent
  kFailedPrecondition,  // the parts do not fit together (digest mismatch, wrong model)
  kResourceExhausted,   // a limit was reached
  kDataLoss,            // bytes are truncated or corrupt
  kUnimplemented,       // valid, but not supported here
  kUnavailable,         // try again later
  kDeadlineExceeded,
  kCancelled,
  kInternal,
};

// The name in snake case: "invalid_argument".
std::string_view code_name(Code code);

struct Error {
  Code code = Code::kInternal;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// return fail(Code::kNotFound, "{}: no tensor '{}'", file, name);
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// The same error with "context: " before its message.
[[nodiscard]] inline tl::unexpected<Error> fail_in(std::string_view context, const Error& error) {
  return tl::unexpected<Error>(Error{error.code, fmt::format("{}: {}", context, error.message)});
}

}  // namespace chiasm

#define CHIASM_CONCAT_(a, b) a##b
#define CHIASM_CONCAT(a, b) CHIASM_CONCAT_(a, b)

// ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_(CHIASM_CONCAT(result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_(tmp, lhs, expr)                                   \
  auto tmp = (expr);                                                        \
  if (!tmp) return tl::unexpected<::chiasm::Error>(std::move(tmp).error()); \
  lhs = std::move(*tmp)

// RETURN_IF_ERROR(check_shape(x));
#define RETURN_IF_ERROR(expr)                                                         \
  do {                                                                                \
    auto status_ = (expr);                                                            \
    if (!status_) return tl::unexpected<::chiasm::Error>(std::move(status_).error()); \
  } while (0)
