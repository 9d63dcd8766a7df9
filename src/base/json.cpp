#include "base/json.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include <simdjson.h>

#include "base/check.h"
#include "base/file.h"

namespace chiasm {

namespace dom = simdjson::dom;

struct Json::Document {
  std::string source;
  dom::parser parser;
  dom::element root;
};

static_assert(sizeof(dom::element) == 2 * sizeof(void*) && std::is_trivially_copyable_v<dom::element>);

namespace {

template <class Raw>
dom::element element_of(const Raw& raw) {
  dom::element out;
  std::memcpy(static_cast<void*>(&out), &raw, sizeof(out));
  return out;
}

std::string_view kind_name(JsonValue::Kind kind) {
  switch (kind) {
    case JsonValue::Kind::kObject: return "an object";
    case JsonValue::Kind::kArray: return "an array";
    case JsonValue::Kind::kString: return "a string";
    case JsonValue::Kind::kInteger:
    case JsonValue::Kind::kUnsigned: return "an integer";
    case JsonValue::Kind::kDouble: return "a number";
    case JsonValue::Kind::kBool: return "a boolean";
    case JsonValue::Kind::kNull: return "null";
  }
  return "something else";
}

// What is wrong with a text, in words of ours: these messages reach clients.
std::string fault_of(simdjson::error_code error, std::size_t depth) {
  switch (error) {
    case simdjson::EMPTY: return "it is empty";
    case simdjson::DEPTH_ERROR: return fmt::format("it is nested deeper than {} levels", depth);
    case simdjson::UTF8_ERROR: return "it is not UTF-8";
    case simdjson::STRING_ERROR: return "a string with an unknown escape";
    case simdjson::UNESCAPED_CHARS: return "a string with control characters that are not escaped";
    case simdjson::UNCLOSED_STRING: return "a string without an end";
    case simdjson::NUMBER_ERROR: return "a number that is malformed or too large";
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR: return "a word that is not true, false or null";
    default: return "a bracket, comma, colon or value is missing or out of place";
  }
}

// Two elements are the same place when their bytes are (document, index).
bool same_place(const dom::element& a, const dom::element& b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

// The dotted path from `at` to `target`, or false. Runs only when an error is made.
bool path_to(dom::element at, const dom::element& target, std::string& path) {
  if (same_place(at, target)) return true;
  const std::size_t length = path.size();
  if (at.is_object()) {
    for (const auto& [key, value] : dom::object(at)) {
      if (length != 0) path += '.';
      path += key;
      if (path_to(value, target, path)) return true;
      path.resize(length);
    }
  } else if (at.is_array()) {
    std::size_t index = 0;
    for (dom::element value : dom::array(at)) {
      path += fmt::format("[{}]", index++);
      if (path_to(value, target, path)) return true;
      path.resize(length);
    }
  }
  return false;
}

}  // namespace

Json::Json(std::unique_ptr<Document> document) : document_(std::move(document)) {}
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

Result<Json> Json::parse(std::string_view text, std::string source, std::size_t depth) {
  depth = std::clamp<std::size_t>(depth, 1, kMaxJsonDepth);
  auto document = std::make_unique<Document>();
  document->source = std::move(source);
  // simdjson keeps string lengths and tape indices in 32 bits.
  if (text.size() > 0xFFFFFFF0ULL - 64)
    return fail(Code::kResourceExhausted, "{}: {} bytes of JSON, the limit is 4 GiB", document->source, text.size());
  if (document->parser.allocate(text.size(), depth))
    return fail(Code::kResourceExhausted, "{}: no memory for {} bytes of JSON", document->source, text.size());
  const auto parsed = document->parser.parse(text.data(), text.size(), true);
  if (const auto error = parsed.get(document->root); error == simdjson::MEMALLOC || error == simdjson::CAPACITY)
    return fail(Code::kResourceExhausted, "{}: no memory for {} bytes of JSON", document->source, text.size());
  else if (error)
    return fail(Code::kInvalidArgument, "{}: not valid JSON: {}", document->source, fault_of(error, depth));
  return Json(std::move(document));
}

Result<Json> Json::load(const std::string& path, std::uint64_t limit) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, limit));
  return parse(text, path);
}

JsonValue Json::root() const {
  JsonValue::Raw raw;
  std::memcpy(&raw, static_cast<const void*>(&document_->root), sizeof(raw));
  return {document_.get(), raw};
}

JsonValue::Kind JsonValue::kind() const {
  switch (element_of(raw_).type()) {
    case dom::element_type::OBJECT: return Kind::kObject;
    case dom::element_type::ARRAY: return Kind::kArray;
    case dom::element_type::STRING: return Kind::kString;
    case dom::element_type::INT64: return Kind::kInteger;
    case dom::element_type::UINT64: return Kind::kUnsigned;
    case dom::element_type::DOUBLE: return Kind::kDouble;
    case dom::element_type::BOOL: return Kind::kBool;
    case dom::element_type::NULL_VALUE: return Kind::kNull;
  }
  return Kind::kNull;
}

std::string JsonValue::where() const {
  std::string path;
  const dom::element self = element_of(raw_);
  if (same_place(document_->root, self) || !path_to(document_->root, self, path)) return document_->source;
  return fmt::format("{}: field '{}'", document_->source, path);
}

Result<std::int64_t> JsonValue::integer() const {
  std::int64_t out = 0;
  if (element_of(raw_).get(out))
    return fail(Code::kInvalidArgument, "{}: expected an integer, got {}", where(), kind_name(kind()));
  return out;
}

Result<std::int64_t> JsonValue::integer(std::int64_t low, std::int64_t high) const {
  ASSIGN_OR_RETURN(const std::int64_t out, integer());
  if (out < low || out > high)
    return fail(Code::kInvalidArgument, "{}: expected an integer from {} to {}, got {}", where(), low, high, out);
  return out;
}

Result<std::uint64_t> JsonValue::unsigned_integer() const {
  std::uint64_t out = 0;
  if (element_of(raw_).get(out))
    return fail(Code::kInvalidArgument, "{}: expected an integer that is not negative, got {}", where(),
                kind_name(kind()));
  return out;
}

Result<double> JsonValue::number() const {
  double out = 0;
  if (element_of(raw_).get(out))
    return fail(Code::kInvalidArgument, "{}: expected a number, got {}", where(), kind_name(kind()));
  return out;
}

Result<bool> JsonValue::boolean() const {
  bool out = false;
  if (element_of(raw_).get(out))
    return fail(Code::kInvalidArgument, "{}: expected true or false, got {}", where(), kind_name(kind()));
  return out;
}

Result<std::string_view> JsonValue::string() const {
  std::string_view out;
  if (element_of(raw_).get(out))
    return fail(Code::kInvalidArgument, "{}: expected a string, got {}", where(), kind_name(kind()));
  return out;
}

std::optional<JsonValue> JsonValue::find(std::string_view key) const {
  dom::object object;
  dom::element value;
  if (element_of(raw_).get(object) || object.at_key(key).get(value)) return std::nullopt;
  Raw raw;
  std::memcpy(&raw, static_cast<const void*>(&value), sizeof(raw));
  return JsonValue(document_, raw);
}

Result<JsonValue> JsonValue::at(std::string_view key) const {
  if (!is_object()) return fail(Code::kInvalidArgument, "{}: expected an object, got {}", where(), kind_name(kind()));
  if (auto value = find(key)) return *value;
  return fail(Code::kNotFound, "{}: field '{}' is missing", where(), key);
}

Result<std::vector<std::pair<std::string_view, JsonValue>>> JsonValue::members() const {
  dom::object object;
  if (element_of(raw_).get(object))
    return fail(Code::kInvalidArgument, "{}: expected an object, got {}", where(), kind_name(kind()));
  std::vector<std::pair<std::string_view, JsonValue>> out;
  out.reserve(object.size());
  for (const auto& [key, value] : object) {
    Raw raw;
    std::memcpy(&raw, static_cast<const void*>(&value), sizeof(raw));
    out.emplace_back(key, JsonValue(document_, raw));
  }
  return out;
}

Result<std::vector<JsonValue>> JsonValue::elements() const {
  dom::array array;
  if (element_of(raw_).get(array))
    return fail(Code::kInvalidArgument, "{}: expected an array, got {}", where(), kind_name(kind()));
  std::vector<JsonValue> out;
  out.reserve(array.size());
  for (dom::element value : array) {
    Raw raw;
    std::memcpy(&raw, static_cast<const void*>(&value), sizeof(raw));
    out.push_back(JsonValue(document_, raw));
  }
  return out;
}

std::size_t JsonValue::size() const {
  const dom::element self = element_of(raw_);
  if (self.is_object()) return dom::object(self).size();
  if (self.is_array()) return dom::array(self).size();
  return 0;
}

std::string JsonValue::text() const { return simdjson::to_string(element_of(raw_)); }

bool is_utf8(std::string_view text) { return simdjson::validate_utf8(text); }

}  // namespace chiasm
