// A schema's text: its places, with their JSON pointers for errors, and what each place says, read once.
//
// schema_compiler.cpp puts together what several places say of one value. Thread contract: one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "grammar/number_automaton.h"

namespace chiasm {

// One bit a kind of value. A number that is no integer is a kind of its own.
enum Types : std::uint8_t {
  kNullType = 1,
  kBooleanType = 2,
  kObjectType = 4,
  kArrayType = 8,
  kStringType = 16,
  kIntegerType = 32,
  kFractionType = 64,
  kNumberTypes = kIntegerType | kFractionType,
  kAllTypes = 127,
};

using Place = std::uint32_t;

// What a place is asked for.
struct Claim {
  enum class Kind : std::uint8_t {
    kSchema,    // the schema there
    kNoEnum,    // without its enum and const, which another claim stands for
    kConstant,  // exactly the value there
    kNothing,   // no value
  };
  Kind kind = Kind::kSchema;
  Place place = 0;
  auto operator<=>(const Claim&) const = default;
};

struct Fragment {
  bool nothing = false;                             // the schema false
  std::optional<std::uint8_t> types;                // the keyword `type`, or a constant's
  std::uint8_t implied = 0;                         // the types that its other keywords are for
  std::optional<std::vector<std::string>> scalars;  // enum and const: the scalars' spellings
  std::vector<Claim> structures;                    // and their objects and arrays

  NumberRule numbers;
  std::int64_t min_length = 0, max_length = -1;  // -1: no limit
  std::vector<std::pair<std::string, Place>> patterns;

  std::vector<std::pair<std::string_view, Claim>> properties;
  std::vector<std::string_view> required;
  std::optional<Claim> additional, names;
  std::int64_t min_members = 0, max_members = -1;

  std::vector<Claim> prefix;
  std::optional<Claim> items;
  std::int64_t min_items = 0, max_items = -1;
  bool distinct = false;

  // Its references and choices aside, it allows everything.
  bool is_empty() const { return !nothing && !types && !scalars && implied == 0; }

  std::vector<Claim> all_of;               // $ref too
  std::vector<std::vector<Claim>> any_of;  // a choice each
  std::vector<bool> exclusive;             // whether the choice is a oneOf
};

class SchemaDocument {
 public:
  static constexpr Place kRoot = 0;

  static Result<std::unique_ptr<SchemaDocument>> parse(std::string_view text);

  // "#/properties/a".
  std::string pointer(Place place) const;

  template <class... Args>
  [[nodiscard]] tl::unexpected<Error> bad(Place place, fmt::format_string<Args...> format, Args&&... args) const {
    return fail(Code::kInvalidArgument, "schema, {}: {}", pointer(place),
                fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  [[nodiscard]] tl::unexpected<Error> unsupported(Place place, fmt::format_string<Args...> format,
                                                  Args&&... args) const {
    return fail(Code::kUnimplemented, "schema, {}: {}", pointer(place),
                fmt::format(format, std::forward<Args>(args)...));
  }

  // What is claimed; valid as long as the document.
  Result<const Fragment*> fragment(const Claim& claim);

  const JsonValue& value(Place place) const { return places_[place].value; }

 private:
  struct Entry {
    JsonValue value;
    Place parent = 0;
    std::string token;
  };

  explicit SchemaDocument(Json json) : json_(std::move(json)) { places_.push_back({json_.root(), 0, ""}); }

  Place child(Place place, std::string_view token, const JsonValue& value);
  Result<Place> resolve(Place from, std::string_view reference);

  Result<Fragment> read_constant(Place place);
  Result<Fragment> read_schema(Place place);
  Result<bool> read_general(Fragment& out, Place place, std::string_view keyword, const JsonValue& value);
  Result<bool> read_scalar(Fragment& out, Place place, std::string_view keyword, const JsonValue& value);
  Result<bool> read_container(Fragment& out, Place place, std::string_view keyword, const JsonValue& value);
  Result<bool> read_applicator(Fragment& out, Place place, std::string_view keyword, const JsonValue& value);
  Status read_enum(Fragment& out, Place place, const std::vector<std::pair<Place, JsonValue>>& values);
  Status read_type(Fragment& out, Place place, const JsonValue& value);
  Result<std::vector<Claim>> claims(Place place, const JsonValue& list);
  Result<std::vector<std::pair<std::string_view, Claim>>> named_claims(Place place, const JsonValue& object);
  Result<std::int64_t> count(Place place, const JsonValue& value);

  Json json_;
  std::vector<Entry> places_;
  std::map<std::pair<Place, std::string>, Place> children_;
  std::map<Claim, std::unique_ptr<const Fragment>> fragments_;
};

// The one spelling of a scalar.
std::string spell_scalar(const JsonValue& value);
std::uint8_t type_of(const JsonValue& value);

}  // namespace chiasm
