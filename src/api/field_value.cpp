#include "api/field_value.h"

#include <algorithm>
#include <cmath>

namespace chiasm {
namespace {

constexpr std::size_t kShownBytes = 60;

// At most `limit` bytes, cut between characters.
std::string_view cut(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return text.substr(0, limit);
}

// Numbers as people write them: 2, 0.5, -100.
std::string number_text(double value) { return fmt::format("{}", value); }

}  // namespace

tl::unexpected<ApiError> refuse(ErrorKind kind, const std::string& path, std::string_view message) {
  return tl::unexpected(
      ApiError{kind, path.empty() ? std::string(message) : fmt::format("{}: {}", path, message), path});
}

tl::unexpected<ApiError> expected(const FieldValue& field, std::string_view what) {
  return invalid(field.path, "expected {}, got {}", what, field.shown());
}

std::string FieldValue::shown() const {
  switch (value.kind()) {
    case JsonValue::Kind::kObject: return "an object";
    case JsonValue::Kind::kArray: return value.size() == 0 ? "an empty list" : "a list";
    case JsonValue::Kind::kNull: return "null";
    case JsonValue::Kind::kBool:
    case JsonValue::Kind::kInteger:
    case JsonValue::Kind::kUnsigned:
    case JsonValue::Kind::kDouble: return value.text();
    case JsonValue::Kind::kString: break;
  }
  const std::string_view all = value.string().value_or(std::string_view());
  const std::string_view shown = cut(all, kShownBytes);
  return fmt::format("\"{}{}\"", shown, shown.size() < all.size() ? "…" : "");
}

ApiResult<std::string_view> FieldValue::string() const {
  if (auto out = value.string()) return *out;
  return expected(*this, "a string");
}

ApiResult<std::string_view> FieldValue::text() const {
  auto out = value.string();
  if (!out || out->empty()) return expected(*this, "a string that is not empty");
  return *out;
}

ApiResult<bool> FieldValue::boolean() const {
  if (auto out = value.boolean()) return *out;
  return expected(*this, "true or false");
}

ApiResult<std::int64_t> FieldValue::integer(std::int64_t low, std::int64_t high) const {
  if (auto out = value.integer(); out && *out >= low && *out <= high) return *out;
  if (value.kind() == JsonValue::Kind::kDouble) {
    const double number = value.number().value_or(0.5);
    if (std::abs(number) <= 0x1p53 && number == std::floor(number)) {
      const auto whole = static_cast<std::int64_t>(number);
      if (whole >= low && whole <= high) return whole;
    }
  }
  return expected(*this, fmt::format("an integer from {} to {}", low, high));
}

ApiResult<double> FieldValue::number(double low, double high, bool above) const {
  if (auto out = value.number(); out && std::isfinite(*out) && (above ? *out > low : *out >= low) && *out <= high)
    return *out;
  return expected(*this, above ? fmt::format("a number above {} and up to {}", number_text(low), number_text(high))
                               : fmt::format("a number from {} to {}", number_text(low), number_text(high)));
}

ApiResult<std::vector<FieldValue>> FieldValue::elements(std::size_t limit, std::string_view what) const {
  if (!value.is_array()) return expected(*this, what);
  if (value.size() > limit) return invalid(path, "expected at most {} entries, got {}", limit, value.size());
  std::vector<FieldValue> out;
  const auto all = value.elements().value();
  out.reserve(all.size());
  for (const JsonValue& one : all) out.push_back({one, fmt::format("{}[{}]", path, out.size())});
  return out;
}

FieldValue FieldValue::member(std::string_view name, JsonValue of) const {
  return {of, path.empty() ? std::string(name) : fmt::format("{}.{}", path, name)};
}

ApiResult<std::vector<std::pair<std::string_view, FieldValue>>> FieldValue::members(std::string_view what) const {
  constexpr std::size_t kMembers = 1024;  // logit_bias may have as many
  if (!value.is_object()) return expected(*this, what);
  if (value.size() > kMembers) return invalid(path, "expected at most {} members, got {}", kMembers, value.size());
  const auto all = value.members().value();
  std::vector<std::string_view> names;
  names.reserve(all.size());
  for (const auto& [name, of] : all) names.push_back(name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    return invalid(member(cut(*twice, kShownBytes), value).path, "given twice");
  std::vector<std::pair<std::string_view, FieldValue>> out;
  out.reserve(all.size());
  for (const auto& [name, of] : all)
    if (!of.is_null()) out.emplace_back(name, member(cut(name, kShownBytes), of));
  return out;
}

namespace {

// Values that a body may have: a parsed one takes some 30 bytes, so that "[[],[],..." is as many times as large as it
// was sent. No request that makes sense comes near.
constexpr std::size_t kMaxValues = 2'000'000;

bool separates(char c) { return c == ',' || c == ':' || c == '[' || c == '{'; }

// Text may hold as many commas as it likes.
std::size_t count_values(std::string_view body) {
  std::size_t values = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (c == '"') in_string = !in_string;
    if (c == '\\' && in_string) ++i;
    if (!in_string && separates(c)) ++values;
  }
  return values;
}

}  // namespace

ApiResult<Json> parse_body(std::string_view body, std::size_t depth) {
  if (body.size() > kMaxValues &&
      static_cast<std::size_t>(std::count_if(body.begin(), body.end(), separates)) > kMaxValues &&
      count_values(body) > kMaxValues)
    return refuse(ErrorKind::kTooLarge, "",
                  fmt::format("request body: expected JSON of at most {} values", kMaxValues));
  auto json = Json::parse(body, "request body", depth);
  if (!json) {
    const bool memory = json.error().code == Code::kResourceExhausted;
    return tl::unexpected(
        ApiError{memory ? ErrorKind::kTooLarge : ErrorKind::kInvalidRequest, json.error().message, {}});
  }
  if (const FieldValue root{json->root(), {}}; !root.value.is_object())
    return invalid("", "request body: expected a JSON object, got {}", root.shown());
  return std::move(*json);
}

}  // namespace chiasm
