// The members of one JSON object, read by name with type and range checks. It remembers which members were asked for,
// so that a parser can tell the user (and its test) which fields of a file it does not know.
//
// A member that is null counts as absent, as in the reference's configurations. Thread contract: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace chiasm {

class Fields {
 public:
  // An error when `value` is no object.
  static Result<Fields> of(JsonValue value);

  // A member that is there and not null. Asking makes it known.
  std::optional<JsonValue> find(std::string_view key);

  // Required members, with inclusive bounds.
  Result<std::int64_t> integer(std::string_view key, std::int64_t low, std::int64_t high);
  Result<double> number(std::string_view key, double low, double high);
  Result<std::string> text(std::string_view key);

  // The same, or `fallback` when absent.
  Result<std::int64_t> integer_or(std::string_view key, std::int64_t low, std::int64_t high, std::int64_t fallback);
  Result<double> number_or(std::string_view key, double low, double high, double fallback);
  Result<bool> boolean_or(std::string_view key, bool fallback);
  Result<std::string> text_or(std::string_view key, std::string_view fallback);

  // Members of that name with another type than expected are errors; the value itself has no effect here.
  Status expect_number(std::string_view key, double low, double high);
  Status expect_boolean(std::string_view key);
  Status expect_text(std::string_view key);

  // An error "FILE: field 'a.key': WHAT".
  tl::unexpected<Error> fail_at(Code code, std::string_view key, std::string_view what) const;

  // Appends "PREFIXkey" for every member never asked for.
  void append_unread(std::string_view prefix, std::vector<std::string>& out) const;

 private:
  explicit Fields(JsonValue object) : object_(object) {}
  JsonValue object_;
  std::set<std::string, std::less<>> asked_;
};

// A number inside [low, high]; NaN is outside.
Result<double> number_between(const JsonValue& value, double low, double high);

}  // namespace chiasm
