#include "models/fields.h"

namespace chiasm {

Result<Fields> Fields::of(JsonValue value) {
  RETURN_IF_ERROR(value.members());  // for its error
  return Fields(value);
}

std::optional<JsonValue> Fields::find(std::string_view key) {
  asked_.emplace(key);
  auto value = object_.find(key);
  if (value && value->is_null()) value.reset();
  return value;
}

tl::unexpected<Error> Fields::fail_at(Code code, std::string_view key, std::string_view what) const {
  if (const auto value = object_.find(key)) return fail(code, "{}: {}", value->where(), what);
  return fail(code, "{}: field '{}': {}", object_.where(), key, what);
}

Result<std::int64_t> Fields::integer(std::string_view key, std::int64_t low, std::int64_t high) {
  if (const auto value = find(key)) return value->integer(low, high);
  return fail_at(Code::kNotFound, key, "is missing, expected an integer");
}

Result<double> Fields::number(std::string_view key, double low, double high) {
  if (const auto value = find(key)) return number_between(*value, low, high);
  return fail_at(Code::kNotFound, key, "is missing, expected a number");
}

Result<std::string> Fields::text(std::string_view key) {
  const auto value = find(key);
  if (!value) return fail_at(Code::kNotFound, key, "is missing, expected a string");
  ASSIGN_OR_RETURN(const std::string_view text, value->string());
  return std::string(text);
}

Result<std::int64_t> Fields::integer_or(std::string_view key, std::int64_t low, std::int64_t high,
                                        std::int64_t fallback) {
  if (const auto value = find(key)) return value->integer(low, high);
  return fallback;
}

Result<double> Fields::number_or(std::string_view key, double low, double high, double fallback) {
  if (const auto value = find(key)) return number_between(*value, low, high);
  return fallback;
}

Result<bool> Fields::boolean_or(std::string_view key, bool fallback) {
  if (const auto value = find(key)) return value->boolean();
  return fallback;
}

Result<std::string> Fields::text_or(std::string_view key, std::string_view fallback) {
  return find(key) ? text(key) : std::string(fallback);
}

Status Fields::expect_number(std::string_view key, double low, double high) {
  RETURN_IF_ERROR(number_or(key, low, high, low));
  return {};
}

Status Fields::expect_boolean(std::string_view key) {
  RETURN_IF_ERROR(boolean_or(key, false));
  return {};
}

Status Fields::expect_text(std::string_view key) {
  RETURN_IF_ERROR(text_or(key, ""));
  return {};
}

void Fields::append_unread(std::string_view prefix, std::vector<std::string>& out) const {
  const auto members = object_.members();
  if (!members) return;
  for (const auto& [key, value] : *members)
    if (!value.is_null() && !asked_.contains(key)) out.push_back(fmt::format("{}{}", prefix, key));
}

Result<double> number_between(const JsonValue& value, double low, double high) {
  ASSIGN_OR_RETURN(const double out, value.number());
  if (!(out >= low && out <= high))
    return fail(Code::kInvalidArgument, "{}: expected a number from {} to {}, got {}", value.where(), low, high, out);
  return out;
}

}  // namespace chiasm
