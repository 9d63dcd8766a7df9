// As much of JSON Schema 2020-12 as /openapi.json uses, so that tests can hold what the parser takes and what is
// written against it. A keyword that is not known here fails the test instead of being passed over.
#pragma once

#include <algorithm>
#include <cmath>
#include <regex>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace chiasm {

class SchemaChecker {
 public:
  using Value = nlohmann::ordered_json;

  explicit SchemaChecker(const Value& document) : document_(document) {}

  bool fits(const Value& value, const std::string& component) const {
    return fits(value, document_["components"]["schemas"].at(component));
  }

 private:
  static bool is_type(const Value& value, const std::string& type) {
    if (type == "integer")
      return value.is_number_integer() || (value.is_number() && value.get<double>() == std::floor(value.get<double>()));
    if (type == "number") return value.is_number();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    return type == "null" && value.is_null();
  }

  bool fits(const Value& value, const Value& schema) const {
    for (const auto& [keyword, rule] : schema.items())
      if (!follows(value, keyword, rule, schema)) return false;
    return true;
  }

  bool follows(const Value& value, const std::string& keyword, const Value& rule, const Value& schema) const {
    if (keyword == "description") return true;
    if (keyword == "$ref") return fits(value, document_.at(Value::json_pointer(rule.get<std::string>().substr(1))));
    if (keyword == "anyOf") {
      for (const Value& one : rule)
        if (fits(value, one)) return true;
      return false;
    }
    if (keyword == "const") return value == rule;
    if (keyword == "enum") return std::find(rule.begin(), rule.end(), value) != rule.end();
    if (keyword == "type") {
      if (rule.is_string()) return is_type(value, rule);
      for (const std::string type : rule)
        if (is_type(value, type)) return true;
      return false;
    }
    if (keyword == "minimum") return !value.is_number() || value >= rule;
    if (keyword == "exclusiveMinimum") return !value.is_number() || value > rule;
    if (keyword == "maximum") return !value.is_number() || value <= rule;
    if (keyword == "minLength") return !value.is_string() || value.get<std::string>().size() >= rule.get<std::size_t>();
    if (keyword == "pattern")
      return !value.is_string() || std::regex_search(value.get<std::string>(), std::regex(rule.get<std::string>()));
    if (keyword == "minItems") return !value.is_array() || value.size() >= rule.get<std::size_t>();
    if (keyword == "maxItems") return !value.is_array() || value.size() <= rule.get<std::size_t>();
    if (keyword == "items") return !value.is_array() || each(value, rule);
    if (keyword == "required") {
      for (const std::string name : rule)
        if (value.is_object() && !value.contains(name)) return false;
      return true;
    }
    if (keyword == "properties") {
      for (const auto& [name, one] : rule.items())
        if (value.is_object() && value.contains(name) && !fits(value[name], one)) return false;
      return true;
    }
    if (keyword == "propertyNames" || keyword == "additionalProperties") {
      if (!value.is_object()) return true;
      for (const auto& [name, of] : value.items()) {
        if (keyword == "propertyNames" && !fits(Value(name), rule)) return false;
        const bool named = schema.contains("properties") && schema["properties"].contains(name);
        if (keyword == "additionalProperties" && !named && !fits(of, rule)) return false;
      }
      return true;
    }
    ADD_FAILURE() << "SchemaChecker does not know the keyword " << keyword;
    return false;
  }

  bool each(const Value& list, const Value& schema) const {
    for (const Value& one : list)
      if (!fits(one, schema)) return false;
    return true;
  }

  const Value& document_;
};

}  // namespace chiasm
