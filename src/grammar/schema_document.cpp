#include "grammar/schema_document.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "grammar/formats.h"
#include "grammar/json_text.h"

namespace chiasm {

namespace {

constexpr std::size_t kMaxText = 256 << 10;

// Keywords that would constrain what is written and are not enforced.
constexpr std::array<std::string_view, 14> kUnsupported = {"not",
                                                           "if",
                                                           "then",
                                                           "else",
                                                           "patternProperties",
                                                           "dependentRequired",
                                                           "dependencies",
                                                           "contains",
                                                           "minContains",
                                                           "maxContains",
                                                           "dependentSchemas",
                                                           "$dynamicRef",
                                                           "$recursiveRef",
                                                           "unevaluatedItems"};

std::string_view kind_name(const JsonValue& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string()) return "a string";
  if (value.is_number()) return "a number";
  return value.is_null() ? "null" : "a boolean";
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned byte = 0;
    if (i + 2 >= text.size() ||
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr != text.data() + i + 3)
      return std::nullopt;
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::string unescaped(std::string_view token) {
  std::string out;
  for (std::size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '~' && i + 1 < token.size())
      out += token[++i] == '1' ? '/' : '~';
    else
      out += token[i];
  }
  return out;
}

}  // namespace

std::string spell_scalar(const JsonValue& value) {
  if (const auto text = value.string(); value.is_string() && text) return quote_json(*text);
  if (value.is_null()) return "null";
  if (value.is_integer()) return fmt::format("{}", value.integer().value_or(0));
  if (value.is_number()) {
    const double number = value.number().value_or(0);
    return number == 0 ? "0" : fmt::format("{}", number);
  }
  return value.boolean().value_or(false) ? "true" : "false";
}

std::uint8_t type_of(const JsonValue& value) {
  if (value.is_object()) return kObjectType;
  if (value.is_array()) return kArrayType;
  if (value.is_string()) return kStringType;
  if (value.is_integer()) return kIntegerType;
  if (value.is_null()) return kNullType;
  if (!value.is_number()) return kBooleanType;
  const double number = value.number().value_or(0);
  return std::floor(number) == number ? kIntegerType : kFractionType;
}

Result<std::unique_ptr<SchemaDocument>> SchemaDocument::parse(std::string_view text) {
  if (text.size() > kMaxText)
    return fail(Code::kInvalidArgument, "schema: {} bytes, the limit is {}", text.size(), kMaxText);
  ASSIGN_OR_RETURN(Json json, Json::parse(text, "schema"));
  return std::unique_ptr<SchemaDocument>(new SchemaDocument(std::move(json)));
}

std::string SchemaDocument::pointer(Place place) const {
  if (place == kRoot) return "#";
  std::string token;
  for (const char c : places_[place].token) token += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return pointer(places_[place].parent) + "/" + token;
}

Place SchemaDocument::child(Place place, std::string_view token, const JsonValue& value) {
  const auto [it, added] = children_.try_emplace({place, std::string(token)}, static_cast<Place>(places_.size()));
  if (added) places_.push_back({value, place, std::string(token)});
  return it->second;
}

Result<Place> SchemaDocument::resolve(Place from, std::string_view reference) {
  if (!reference.starts_with('#') || (reference.size() > 1 && reference[1] != '/'))
    return unsupported(from, "only references within the schema, as '#/$defs/name', not '{}'", reference);
  const auto path = percent_decoded(reference.substr(1));
  Place at = kRoot;
  for (std::size_t begin = 1; path && begin <= path->size();) {
    const std::size_t end = std::min(path->find('/', begin), path->size());
    const std::string token = unescaped(std::string_view(*path).substr(begin, end - begin));
    const JsonValue here = value(at);
    std::optional<JsonValue> next = here.find(token);
    if (here.is_array()) {
      ASSIGN_OR_RETURN(const auto elements, here.elements());
      std::size_t index = elements.size();
      const auto [last, error] = std::from_chars(token.data(), token.data() + token.size(), index);
      if (error == std::errc() && last == token.data() + token.size() && index < elements.size())
        next = elements[index];
    }
    if (!next) return bad(from, "nothing is at '{}'", reference);
    at = child(at, token, *next);
    begin = end + 1;
  }
  if (!path) return bad(from, "'{}' is no JSON pointer", reference);
  return at;
}

Result<const Fragment*> SchemaDocument::fragment(const Claim& claim) {
  const auto it = fragments_.find(claim);
  if (it != fragments_.end()) return it->second.get();
  Fragment fragment;
  switch (claim.kind) {
    case Claim::Kind::kNothing: fragment.nothing = true; break;
    case Claim::Kind::kConstant: {
      ASSIGN_OR_RETURN(fragment, read_constant(claim.place));
      break;
    }
    case Claim::Kind::kSchema:
    case Claim::Kind::kNoEnum: {
      ASSIGN_OR_RETURN(fragment, read_schema(claim.place));
      if (claim.kind == Claim::Kind::kNoEnum) {
        fragment.scalars.reset();
        fragment.structures.clear();
      }
      break;
    }
  }
  return fragments_.emplace(claim, std::make_unique<const Fragment>(std::move(fragment))).first->second.get();
}

Result<Fragment> SchemaDocument::read_constant(Place place) {
  const JsonValue constant = value(place);
  Fragment out;
  out.types = type_of(constant);
  if (constant.is_object()) {
    ASSIGN_OR_RETURN(out.properties, named_claims(place, constant));
    for (auto& [name, claim] : out.properties) {
      claim.kind = Claim::Kind::kConstant;
      out.required.push_back(name);
    }
    out.additional = Claim{Claim::Kind::kNothing, 0};
  } else if (constant.is_array()) {
    ASSIGN_OR_RETURN(const auto elements, constant.elements());
    for (std::size_t i = 0; i < elements.size(); ++i)
      out.prefix.push_back({Claim::Kind::kConstant, child(place, std::to_string(i), elements[i])});
    out.min_items = out.max_items = std::ssize(elements);
  } else {
    if (constant.is_integer() && !constant.integer())
      return unsupported(place, "an integer beyond 64 bits with a sign");
    out.scalars = {spell_scalar(constant)};
  }
  return out;
}

Result<Fragment> SchemaDocument::read_schema(Place place) {
  const JsonValue schema = value(place);
  Fragment out;
  if (const auto boolean = schema.boolean(); boolean) {
    out.nothing = !*boolean;
    return out;
  }
  if (!schema.is_object()) return bad(place, "expected a schema (an object, true or false), got {}", kind_name(schema));
  std::set<std::string_view> seen;
  const auto members = schema.members().value();
  for (const auto& [keyword, value] : members) {
    if (!seen.insert(keyword).second) return bad(place, "'{}' stands twice", keyword);
    if (std::find(kUnsupported.begin(), kUnsupported.end(), keyword) != kUnsupported.end())
      return unsupported(child(place, keyword, value), "the keyword '{}' is not supported", keyword);
    for (const auto read : {&SchemaDocument::read_general, &SchemaDocument::read_scalar,
                            &SchemaDocument::read_container, &SchemaDocument::read_applicator}) {
      ASSIGN_OR_RETURN(const bool known, (this->*read)(out, child(place, keyword, value), keyword, value));
      if (known) break;
    }
  }
  // Draft 4 marks bounds as exclusive with a boolean.
  for (const auto& [mark, excluded, bound] : {std::tuple{"exclusiveMinimum", &out.numbers.low_excluded, "minimum"},
                                              std::tuple{"exclusiveMaximum", &out.numbers.high_excluded, "maximum"}})
    if (const auto flag = schema.find(mark); flag && flag->boolean().value_or(false) && schema.find(bound))
      *excluded = true;
  // Draft 7's list of items; what follows it is additionalItems.
  if (const auto items = schema.find("items"); items && items->is_array()) {
    out.items.reset();
    if (const auto more = schema.find("additionalItems"))
      out.items = Claim{Claim::Kind::kSchema, child(place, "additionalItems", *more)};
  }
  return out;
}

Result<std::int64_t> SchemaDocument::count(Place place, const JsonValue& value) {
  constexpr double kMost = 1e9;
  const auto number = value.number();
  if (!number || *number < 0 || std::floor(*number) != *number)
    return bad(place, "expected a number of 0, 1, 2, ..., got {}", number ? spell_scalar(value) : kind_name(value));
  return static_cast<std::int64_t>(std::min(*number, kMost));
}

Result<bool> SchemaDocument::read_general(Fragment& out, Place place, std::string_view keyword,
                                          const JsonValue& value) {
  if (keyword == "type") {
    RETURN_IF_ERROR(read_type(out, place, value));
  } else if (keyword == "enum") {
    const auto elements = value.elements();
    if (!elements) return bad(place, "expected an array, got {}", kind_name(value));
    std::vector<std::pair<Place, JsonValue>> values;
    for (std::size_t i = 0; i < elements->size(); ++i)
      values.emplace_back(child(place, std::to_string(i), (*elements)[i]), (*elements)[i]);
    RETURN_IF_ERROR(read_enum(out, place, values));
  } else if (keyword == "const") {
    out.all_of.push_back({Claim::Kind::kConstant, place});
  } else {
    return false;
  }
  return true;
}

Status SchemaDocument::read_enum(Fragment& out, Place place, const std::vector<std::pair<Place, JsonValue>>& values) {
  if (values.empty()) return bad(place, "an enumeration of nothing");
  out.scalars.emplace();
  for (const auto& [at, value] : values) {
    if (value.is_object() || value.is_array()) {
      out.structures.push_back({Claim::Kind::kConstant, at});
    } else {
      if (value.is_integer() && !value.integer()) return unsupported(at, "an integer beyond 64 bits with a sign");
      out.scalars->push_back(spell_scalar(value));
    }
  }
  return {};
}

Status SchemaDocument::read_type(Fragment& out, Place place, const JsonValue& value) {
  static constexpr std::array<std::pair<std::string_view, std::uint8_t>, 7> kNames = {{{"null", kNullType},
                                                                                       {"boolean", kBooleanType},
                                                                                       {"object", kObjectType},
                                                                                       {"array", kArrayType},
                                                                                       {"string", kStringType},
                                                                                       {"integer", kIntegerType},
                                                                                       {"number", kNumberTypes}}};
  std::uint8_t types = 0;
  const auto add = [&](const JsonValue& name) -> Status {
    const auto text = name.string();
    if (!text) return bad(place, "expected the name of a type, got {}", kind_name(name));
    const auto it = std::find_if(kNames.begin(), kNames.end(), [&](const auto& known) { return known.first == *text; });
    if (it == kNames.end()) return bad(place, "no type is called '{}'", *text);
    types |= it->second;
    return {};
  };
  if (value.is_array()) {
    const auto names = value.elements().value();
    if (names.empty()) return bad(place, "a list of no types");
    for (const JsonValue& name : names) RETURN_IF_ERROR(add(name));
  } else {
    RETURN_IF_ERROR(add(value));
  }
  out.types = types;
  return {};
}

Result<bool> SchemaDocument::read_scalar(Fragment& out, Place place, std::string_view keyword, const JsonValue& value) {
  const auto bound = [&]() -> Result<Decimal> {
    const auto number = Decimal::of(value);
    if (!number) return bad(place, "expected a number, got {}", kind_name(value));
    return *number;
  };
  if (keyword == "minLength" || keyword == "maxLength") {
    ASSIGN_OR_RETURN((keyword == "minLength" ? out.min_length : out.max_length), count(place, value));
    out.implied |= kStringType;
  } else if (keyword == "pattern" || keyword == "format") {
    const auto text = value.string();
    if (!text) return bad(place, "expected a string, got {}", kind_name(value));
    if (keyword == "pattern") {
      out.patterns.emplace_back(*text, place);
      out.implied |= kStringType;
    } else if (const auto pattern = format_pattern(*text); pattern) {
      out.patterns.emplace_back(*pattern, place);
      out.implied |= kStringType;
    }
  } else if (keyword == "minimum" || keyword == "maximum" || keyword == "exclusiveMinimum" ||
             keyword == "exclusiveMaximum") {
    out.implied |= kNumberTypes;
    const bool excluded = keyword.starts_with("exclusive");
    if (excluded && value.boolean()) return true;
    ASSIGN_OR_RETURN(const Decimal number, bound());
    if (keyword.ends_with("inimum"))
      out.numbers.raise_low(number, excluded);
    else
      out.numbers.lower_high(number, excluded);
  } else if (keyword == "multipleOf") {
    ASSIGN_OR_RETURN(const Decimal number, bound());
    if (number.digits <= 0) return bad(place, "expected a number above 0");
    out.numbers.multiple_of = number;
    out.implied |= kNumberTypes;
  } else {
    return false;
  }
  return true;
}

Result<bool> SchemaDocument::read_container(Fragment& out, Place place, std::string_view keyword,
                                            const JsonValue& value) {
  if (keyword == "properties") {
    ASSIGN_OR_RETURN(out.properties, named_claims(place, value));
    out.implied |= kObjectType;
  } else if (keyword == "required") {
    const auto names = value.elements();
    if (!names) return bad(place, "expected an array, got {}", kind_name(value));
    for (const JsonValue& name : *names) {
      const auto text = name.string();
      if (!text) return bad(place, "expected names, got {}", kind_name(name));
      out.required.push_back(*text);
    }
    out.implied |= kObjectType;
  } else if (keyword == "additionalProperties" || keyword == "propertyNames") {
    (keyword == "propertyNames" ? out.names : out.additional) = Claim{Claim::Kind::kSchema, place};
    out.implied |= kObjectType;
  } else if (keyword == "minProperties" || keyword == "maxProperties") {
    ASSIGN_OR_RETURN((keyword == "minProperties" ? out.min_members : out.max_members), count(place, value));
    out.implied |= kObjectType;
  } else if (keyword == "prefixItems" || (keyword == "items" && value.is_array())) {
    ASSIGN_OR_RETURN(out.prefix, claims(place, value));
    out.implied |= kArrayType;
  } else if (keyword == "items") {
    out.items = Claim{Claim::Kind::kSchema, place};
    out.implied |= kArrayType;
  } else if (keyword == "minItems" || keyword == "maxItems") {
    ASSIGN_OR_RETURN((keyword == "minItems" ? out.min_items : out.max_items), count(place, value));
    out.implied |= kArrayType;
  } else if (keyword == "uniqueItems") {
    const auto flag = value.boolean();
    if (!flag) return bad(place, "expected true or false, got {}", kind_name(value));
    out.distinct = *flag;
    out.implied |= kArrayType;
  } else {
    return false;
  }
  return true;
}

Result<bool> SchemaDocument::read_applicator(Fragment& out, Place place, std::string_view keyword,
                                             const JsonValue& value) {
  if (keyword == "$ref") {
    const auto text = value.string();
    if (!text) return bad(place, "expected a string, got {}", kind_name(value));
    ASSIGN_OR_RETURN(const Place target, resolve(place, *text));
    out.all_of.push_back({Claim::Kind::kSchema, target});
  } else if (keyword == "allOf" || keyword == "anyOf" || keyword == "oneOf") {
    ASSIGN_OR_RETURN(auto branches, claims(place, value));
    if (branches.empty()) return bad(place, "expected at least one schema");
    if (keyword == "allOf") {
      out.all_of.insert(out.all_of.end(), branches.begin(), branches.end());
    } else {
      out.any_of.push_back(std::move(branches));
      out.exclusive.push_back(keyword == "oneOf");
    }
  } else if (keyword == "unevaluatedProperties") {
    if (!value.boolean().value_or(false)) return unsupported(place, "the keyword '{}' is not supported", keyword);
  } else {
    return false;
  }
  return true;
}

Result<std::vector<Claim>> SchemaDocument::claims(Place place, const JsonValue& list) {
  const auto elements = list.elements();
  if (!elements) return bad(place, "expected an array, got {}", kind_name(list));
  std::vector<Claim> out;
  for (std::size_t i = 0; i < elements->size(); ++i)
    out.push_back({Claim::Kind::kSchema, child(place, std::to_string(i), (*elements)[i])});
  return out;
}

Result<std::vector<std::pair<std::string_view, Claim>>> SchemaDocument::named_claims(Place place,
                                                                                     const JsonValue& object) {
  const auto members = object.members();
  if (!members) return bad(place, "expected an object, got {}", kind_name(object));
  std::vector<std::pair<std::string_view, Claim>> out;
  std::set<std::string_view> seen;
  for (const auto& [name, value] : *members) {
    if (!seen.insert(name).second) return bad(place, "'{}' stands twice", name);
    out.emplace_back(name, Claim{Claim::Kind::kSchema, child(place, name, value)});
  }
  return out;
}

}  // namespace chiasm
