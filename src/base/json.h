// JSON read with errors that name the file and the field. Writing goes through nlohmann::ordered_json where it is
// needed; this is the reading side, on simdjson.
//
// A JsonValue is a view into its Json, which must outlive it. Thread contract: a parsed Json is immutable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace simdjson::dom {
class element;
}

namespace chiasm {

class JsonValue;

inline constexpr std::size_t kJsonDepth = 64;
inline constexpr std::size_t kMaxJsonDepth = 1024;

// One parsed document.
class Json {
 public:
  // `source` names the document in every error: a file's path, or "request body". `depth` limits the levels of
  // objects and arrays, a value inside the innermost being one of them; at most kMaxJsonDepth.
  static Result<Json> parse(std::string_view text, std::string source, std::size_t depth = kJsonDepth);
  // Reads and parses a file of at most `limit` bytes.
  static Result<Json> load(const std::string& path, std::uint64_t limit);

  JsonValue root() const;

  Json(Json&&) noexcept;
  Json& operator=(Json&&) noexcept;
  ~Json();

 private:
  friend class JsonValue;
  struct Document;
  explicit Json(std::unique_ptr<Document> document);
  std::unique_ptr<Document> document_;
};

// A value inside a document. Cheap to copy; its place in the document is worked out only when an error is made.
class JsonValue {
 public:
  enum class Kind : std::uint8_t { kObject, kArray, kString, kInteger, kUnsigned, kDouble, kBool, kNull };

  Kind kind() const;
  bool is_object() const { return kind() == Kind::kObject; }
  bool is_array() const { return kind() == Kind::kArray; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_null() const { return kind() == Kind::kNull; }
  bool is_integer() const { return kind() == Kind::kInteger || kind() == Kind::kUnsigned; }
  bool is_number() const { return is_integer() || kind() == Kind::kDouble; }

  // Typed reads: an error "FILE: field 'a.b': expected an integer, got a string" otherwise.
  Result<std::int64_t> integer() const;
  Result<std::int64_t> integer(std::int64_t low, std::int64_t high) const;  // inclusive bounds
  Result<std::uint64_t> unsigned_integer() const;                           // not negative
  Result<double> number() const;                                            // integers too
  Result<bool> boolean() const;
  Result<std::string_view> string() const;

  // Members of an object.
  std::optional<JsonValue> find(std::string_view key) const;  // absent, or this is no object: nullopt
  Result<JsonValue> at(std::string_view key) const;           // absent: an error that names the field
  Result<std::vector<std::pair<std::string_view, JsonValue>>> members() const;

  // Elements of an array.
  Result<std::vector<JsonValue>> elements() const;

  // How many members or elements, told before either list is made; 0 for other kinds. Counts to 16777215 only.
  std::size_t size() const;

  // The value as JSON text without spaces, strings and numbers spelled in the shortest way.
  std::string text() const;

  // "FILE: field 'a.b'", for errors of the caller's own.
  std::string where() const;

 private:
  friend class Json;
  struct Raw {  // simdjson::dom::element, kept out of this header: it is two words
    const void* document = nullptr;
    std::size_t index = 0;
  };
  JsonValue(const Json::Document* document, Raw raw) : document_(document), raw_(raw) {}
  const Json::Document* document_;
  Raw raw_;
};

// Whether a text may stand in JSON as it is.
bool is_utf8(std::string_view text);

}  // namespace chiasm
