// A second, independent reading of JSON schemas for the tests: checks a finished text against a schema.
//
// Written plainly from the standard, on nlohmann::json; knows the keywords of json_schema.h. Thread contract: pure
// functions.
#pragma once

#include <cmath>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace chiasm::test {

using Document = nlohmann::ordered_json;

class SchemaValidator {
 public:
  explicit SchemaValidator(const std::string& schema) : root_(Document::parse(schema)) {}

  // What is wrong with `text`, nothing if it is a document of the schema.
  std::optional<std::string> violation(const std::string& text) const {
    std::vector<std::set<std::string>> open;
    bool twice = false;
    const auto watch = [&](int, Document::parse_event_t event, Document& parsed) {
      if (event == Document::parse_event_t::object_start) open.emplace_back();
      if (event == Document::parse_event_t::key) twice = twice || !open.back().insert(parsed.get<std::string>()).second;
      if (event == Document::parse_event_t::object_end) open.pop_back();
      return true;
    };
    Document value;
    try {
      value = Document::parse(text, watch);
    } catch (const std::exception& error) {
      return fmt::format("does not parse: {}", error.what());
    }
    if (twice) return "a name twice in one object";
    return check(root_, value, "");
  }

 private:
  using Problem = std::optional<std::string>;

  static bool has_type(const Document& value, const std::string& type) {
    if (type == "null") return value.is_null();
    if (type == "boolean") return value.is_boolean();
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "number") return value.is_number();
    if (type == "integer")
      return value.is_number_integer() || (value.is_number() && std::floor(value.get<double>()) == value.get<double>());
    throw std::runtime_error("type " + type);
  }

  static std::size_t length(const std::string& text) {
    std::size_t out = 0;
    for (const char c : text) out += (c & 0xC0) != 0x80;
    return out;
  }

  // One element a code point.
  static std::wstring wide(const std::string& text) {
    std::wstring out;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte & 0xC0) != 0x80)
        out += static_cast<wchar_t>(byte < 0x80   ? byte
                                    : byte < 0xE0 ? byte & 0x1F
                                    : byte < 0xF0 ? byte & 0x0F
                                                  : byte & 0x07);
      else
        out.back() = static_cast<wchar_t>(out.back() << 6 | (byte & 0x3F));
    }
    return out;
  }

  static bool equal(const Document& a, const Document& b) {
    if (a.is_number() && b.is_number()) return a.get<double>() == b.get<double>();
    // Members in any order.
    return nlohmann::json::parse(a.dump()) == nlohmann::json::parse(b.dump());
  }

  const Document& resolve(const std::string& reference) const {
    return root_.at(Document::json_pointer(reference.substr(1)));
  }

  Problem check(const Document& schema, const Document& value, const std::string& at) const {
    if (schema.is_boolean()) return schema.get<bool>() ? Problem() : Problem(at + ": false allows nothing");
    const auto bad = [&](const std::string& what) {
      return Problem(fmt::format("{}: {} (got {})", at, what, value.dump()));
    };
    if (schema.contains("$ref"))
      if (auto problem = check(resolve(schema["$ref"]), value, at)) return problem;
    if (schema.contains("type")) {
      const Document& type = schema["type"];
      bool any = false;
      for (const auto& name : type.is_array() ? type : Document::array({type})) any = any || has_type(value, name);
      if (!any) return bad("type " + type.dump());
    }
    if (schema.contains("enum")) {
      bool any = false;
      for (const auto& item : schema["enum"]) any = any || equal(item, value);
      if (!any) return bad("enum");
    }
    if (schema.contains("const") && !equal(schema["const"], value)) return bad("const");
    if (value.is_string())
      if (auto problem = check_string(schema, value, at)) return problem;
    if (value.is_number())
      if (auto problem = check_number(schema, value, at)) return problem;
    if (value.is_object())
      if (auto problem = check_object(schema, value, at)) return problem;
    if (value.is_array())
      if (auto problem = check_array(schema, value, at)) return problem;
    for (const auto& part : schema.value("allOf", Document::array()))
      if (auto problem = check(part, value, at)) return problem;
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (!schema.contains(keyword)) continue;
      int matching = 0;
      for (const auto& part : schema[keyword]) matching += !check(part, value, at);
      if (matching == 0 || (matching > 1 && std::string(keyword) == "oneOf"))
        return bad(fmt::format("{} branches of {}", matching, keyword));
    }
    return {};
  }

  static Problem check_string(const Document& schema, const Document& value, const std::string& at) {
    const std::string text = value;
    if (schema.contains("minLength") && length(text) < schema["minLength"].get<std::size_t>())
      return at + ": minLength";
    if (schema.contains("maxLength") && length(text) > schema["maxLength"].get<std::size_t>())
      return fmt::format("{}: maxLength, '{}'", at, text);
    if (schema.contains("pattern") && !std::regex_search(wide(text), std::wregex(wide(schema["pattern"]))))
      return fmt::format("{}: pattern {}, '{}'", at, schema["pattern"].dump(), text);
    if (schema.contains("format") && !has_format(text, schema["format"]))
      return fmt::format("{}: format {}, '{}'", at, schema["format"].dump(), text);
    return {};
  }

  static bool is_date(const std::string& text) {
    int year = 0, month = 0, day = 0, used = 0;
    if (std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &year, &month, &day, &used) != 3 || used != 10 || text.size() != 10)
      return false;
    static const int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return year >= 1 && month >= 1 && month <= 12 && day >= 1 && day <= kDays[month - 1] + (leap && month == 2 ? 1 : 0);
  }

  static bool is_time(const std::string& text) {
    int hour = 99, minute = 99, second = 99, used = 0;
    if (std::sscanf(text.c_str(), "%2d:%2d:%2d%n", &hour, &minute, &second, &used) != 3 || used != 8) return false;
    return hour < 24 && minute < 60 && second < 60 &&
           std::regex_match(text.substr(8), std::regex(R"((\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))"));
  }

  static bool has_format(const std::string& text, const std::string& format) {
    if (format == "date") return is_date(text);
    if (format == "time") return is_time(text);
    if (format == "date-time")
      return text.size() > 11 && is_date(text.substr(0, 10)) && text[10] == 'T' && is_time(text.substr(11));
    if (format == "uuid")
      return std::regex_match(text, std::regex("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"));
    if (format == "email") {
      const std::size_t sign = text.find('@');
      return sign != std::string::npos && sign > 0 && text.find('@', sign + 1) == std::string::npos &&
             text.find('.', sign) != std::string::npos && text.find("..") == std::string::npos;
    }
    if (format == "ipv4") {
      int parts[4], used = 0;
      if (std::sscanf(text.c_str(), "%3d.%3d.%3d.%3d%n", &parts[0], &parts[1], &parts[2], &parts[3], &used) != 4)
        return false;
      return used == static_cast<int>(text.size()) &&
             std::all_of(parts, parts + 4, [](int p) { return p >= 0 && p < 256; });
    }
    return true;
  }

  static Problem check_number(const Document& schema, const Document& value, const std::string& at) {
    const double number = value;
    const auto bad = [&](const char* keyword) { return fmt::format("{}: {}, {}", at, keyword, value.dump()); };
    if (schema.contains("minimum") && number < schema["minimum"].get<double>()) return bad("minimum");
    if (schema.contains("maximum") && number > schema["maximum"].get<double>()) return bad("maximum");
    if (schema.contains("exclusiveMinimum") && number <= schema["exclusiveMinimum"].get<double>())
      return bad("exclusiveMinimum");
    if (schema.contains("exclusiveMaximum") && number >= schema["exclusiveMaximum"].get<double>())
      return bad("exclusiveMaximum");
    if (schema.contains("multipleOf")) {
      const double quotient = number / schema["multipleOf"].get<double>();
      if (std::abs(quotient - std::round(quotient)) > 1e-9 * std::max(1.0, std::abs(quotient)))
        return bad("multipleOf");
    }
    return {};
  }

  Problem check_object(const Document& schema, const Document& value, const std::string& at) const {
    for (const auto& name : schema.value("required", Document::array()))
      if (!value.contains(name.get<std::string>())) return fmt::format("{}: {} is missing", at, name.dump());
    const Document properties = schema.value("properties", Document::object());
    for (const auto& [name, member] : value.items()) {
      const std::string here = at + "/" + name;
      if (properties.contains(name)) {
        if (auto problem = check(properties[name], member, here)) return problem;
      } else if (schema.contains("additionalProperties")) {
        if (auto problem = check(schema["additionalProperties"], member, here)) return problem;
      }
      if (schema.contains("propertyNames"))
        if (auto problem = check(schema["propertyNames"], Document(name), here)) return problem;
    }
    if (schema.contains("minProperties") && value.size() < schema["minProperties"].get<std::size_t>())
      return at + ": minProperties";
    if (schema.contains("maxProperties") && value.size() > schema["maxProperties"].get<std::size_t>())
      return at + ": maxProperties";
    return {};
  }

  Problem check_array(const Document& schema, const Document& value, const std::string& at) const {
    const Document prefix = schema.value("prefixItems", Document::array());
    for (std::size_t i = 0; i < value.size(); ++i) {
      const std::string here = fmt::format("{}/{}", at, i);
      if (i < prefix.size()) {
        if (auto problem = check(prefix[i], value[i], here)) return problem;
      } else if (schema.contains("items")) {
        if (auto problem = check(schema["items"], value[i], here)) return problem;
      }
      if (schema.value("uniqueItems", false))
        for (std::size_t j = 0; j < i; ++j)
          if (equal(value[i], value[j])) return here + ": twice";
    }
    if (schema.contains("minItems") && value.size() < schema["minItems"].get<std::size_t>()) return at + ": minItems";
    if (schema.contains("maxItems") && value.size() > schema["maxItems"].get<std::size_t>()) return at + ": maxItems";
    return {};
  }

  Document root_;
};

}  // namespace chiasm::test
