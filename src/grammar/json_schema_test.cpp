#include "grammar/json_schema.h"

#include <functional>

#include <gtest/gtest.h>

#include "grammar/sequence_state.h"
#include "grammar/test_languages.h"

namespace chiasm {
namespace {

using test::toytown;

Error refusal(const std::string& schema) {
  const auto result = json_schema_constraint(toytown().vocabulary, schema);
  return result ? Error{Code::kInternal, "accepted"} : result.error();
}

struct Refused {
  const char* schema;
  Code code;
  const char* message;  // a part of it
};

TEST(JsonSchema, RefusalsSayWhatAndWhere) {
  for (const Refused& one : std::vector<Refused>{
           {"{", Code::kInvalidArgument, "not valid JSON"},
           {"1", Code::kInvalidArgument, "#: expected a schema"},
           {R"({"type": "text"})", Code::kInvalidArgument, "#/type: no type is called 'text'"},
           {R"({"type": []})", Code::kInvalidArgument, "#/type"},
           {R"({"properties": {"a~/": {"type": 5}}})", Code::kInvalidArgument, "#/properties/a~0~1/type"},
           {R"({"properties": []})", Code::kInvalidArgument, "#/properties: expected an object"},
           {R"({"required": "a"})", Code::kInvalidArgument, "#/required"},
           {R"({"enum": []})", Code::kInvalidArgument, "#/enum"},
           {R"({"anyOf": []})", Code::kInvalidArgument, "#/anyOf"},
           {R"({"minLength": -1})", Code::kInvalidArgument, "#/minLength"},
           {R"({"minItems": 1.5})", Code::kInvalidArgument, "#/minItems"},
           {R"({"multipleOf": 0})", Code::kInvalidArgument, "#/multipleOf"},
           {"{\"pattern\": \"(\"}", Code::kInvalidArgument, "#/pattern: not a regular expression"},
           {R"({"$ref": "#/$defs/nothing"})", Code::kInvalidArgument, "nothing is at '#/$defs/nothing'"},
           {R"({"$ref": "#"})", Code::kInvalidArgument, "part of itself"},
           {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", Code::kInvalidArgument, "part of itself"},
           {R"({"type": "object", "type": "array"})", Code::kInvalidArgument, "twice"},
           {R"({"properties": {"a": {}, "a": {}}})", Code::kInvalidArgument, "twice"},
           // Nothing matches.
           {"false", Code::kInvalidArgument, "no value can match"},
           {R"({"type": "string", "minLength": 3, "maxLength": 2})", Code::kInvalidArgument, "no value"},
           {R"({"type": "integer", "minimum": 3, "maximum": 2})", Code::kInvalidArgument, "no value"},
           {R"({"type": "string", "pattern": "^a$", "minLength": 2})", Code::kInvalidArgument, "no value"},
           {R"({"type": "integer", "enum": ["a"]})", Code::kInvalidArgument, "no value"},
           {R"({"allOf": [{"type": "string"}, {"type": "null"}]})", Code::kInvalidArgument, "no value"},
           {R"({"type": "array", "items": false, "minItems": 1})", Code::kInvalidArgument, "no value"},
           {R"({"type": "object", "properties": {"a": false}, "required": ["a"]})", Code::kInvalidArgument, "no value"},
           {R"({"type": "object", "required": ["a"], "additionalProperties": false})", Code::kInvalidArgument,
            "no value"},
           {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})", Code::kInvalidArgument,
            "no value"},
           {R"({"type": "object", "minProperties": 2, "maxProperties": 1})", Code::kInvalidArgument, "no value"},
           {R"({"type": "array", "uniqueItems": true, "items": {"type": "boolean"}, "minItems": 3})",
            Code::kInvalidArgument, "no value"},
           // Valid, but not here.
           {R"({"not": {}})", Code::kUnimplemented, "#/not: the keyword 'not'"},
           {R"({"properties": {"a": {"if": {}}}})", Code::kUnimplemented, "#/properties/a/if"},
           {R"({"patternProperties": {}})", Code::kUnimplemented, "patternProperties"},
           {R"({"type": "array", "contains": {}})", Code::kUnimplemented, "contains"},
           {R"({"unevaluatedProperties": false})", Code::kUnimplemented, "unevaluatedProperties"},
           {R"({"$ref": "other.json"})", Code::kUnimplemented, "#/$ref"},
           {R"({"$ref": "#anchor"})", Code::kUnimplemented, "#/$ref"},
           {R"({"type": "array", "uniqueItems": true})", Code::kUnimplemented, "uniqueItems"},
           {R"({"propertyNames": {"pattern": "^a"}})", Code::kUnimplemented, "#/propertyNames"},
           {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", Code::kUnimplemented, "#/oneOf/1"},
           {R"({"oneOf": [{"type": "object"}, {"type": "object", "properties": {"a": {}}}]})", Code::kUnimplemented,
            "#/oneOf/0"},
           {"{\"pattern\": \"(?=a)\"}", Code::kUnimplemented, "#/pattern"},
           {R"({"pattern": "^a*$", "maxLength": 1000000})", Code::kUnimplemented, "too large"},
           {R"({"minLength": 10000000})", Code::kUnimplemented, "minLength"},
           {R"({"minItems": 10000000})", Code::kUnimplemented, "minItems"},
           {R"({"minimum": 1e40})", Code::kUnimplemented, "#: minimum"},
           {R"({"enum": [18446744073709551615]})", Code::kUnimplemented, "#/enum/0"}}) {
    const Error error = refusal(one.schema);
    EXPECT_EQ(error.code, one.code) << one.schema << ": " << error.message;
    EXPECT_NE(error.message.find(one.message), std::string::npos) << one.schema << ": " << error.message;
    EXPECT_TRUE(error.message.starts_with("schema")) << error.message;
  }
}

TEST(JsonSchema, AnnotationsSayNothing) {
  EXPECT_EQ(
      refusal(
          R"({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x", "title": "t", "description": "d",
      "default": 1, "examples": [], "deprecated": true, "readOnly": true, "$comment": "c", "type": "string", "x-more": {},
      "format": "uri", "contentEncoding": "base64", "discriminator": {"propertyName": "a"}, "unevaluatedProperties": true})")
          .message,
      "accepted");
}

TEST(JsonSchema, BranchesOfOneOfThatExcludeEachOther) {
  for (
      const char* schema :
      {R"({"oneOf": [{"type": "string"}, {"type": "array"}, {"type": "null"}]})",
       R"({"oneOf": [{"const": 1}, {"const": 2}, {"enum": ["a", "b"]}]})",
       R"({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "exclusiveMinimum": 3}]})",
       R"({"oneOf": [{"type": "array", "maxItems": 1}, {"type": "array", "minItems": 2}]})",
       R"({"oneOf": [{"type": "object", "properties": {"a": {}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {}}, "additionalProperties": false}]})",
       R"({"oneOf": [{"type": "object", "properties": {"at": {"type": "object", "properties": {"k": {"const": 1}}, "required": ["k"]}},
            "required": ["at"]}, {"type": "object", "properties": {"at": {"type": "object", "properties": {"k": {"const": 2}},
            "required": ["k"]}}, "required": ["at"]}]})",
       R"({"$defs": {"e": {"oneOf": [{"type": "integer"}, {"type": "object", "properties": {"op": {"const": "+"}, "l":
            {"$ref": "#/$defs/e"}}, "required": ["op", "l"]}, {"type": "object", "properties": {"op": {"const": "-"}, "l":
            {"$ref": "#/$defs/e"}}, "required": ["op", "l"]}]}}, "$ref": "#/$defs/e"})"})
    EXPECT_EQ(refusal(schema).message, "accepted") << schema;
}

// What takes long or much is refused, or is quick.
TEST(JsonSchema, HostileSchemas) {
  const auto repeat = [](int count, const std::function<std::string(int)>& part) {
    std::string out;
    for (int i = 0; i < count; ++i) out += (i == 0 ? "" : ",") + part(i);
    return out;
  };
  const std::vector<std::string> schemas = {
      // Choices multiplied.
      R"({"allOf": [)" +
          repeat(12,
                 [](int i) {
                   return fmt::format(R"({{"anyOf": [{{"required": ["a{0}"]}}, {{"required": ["b{0}"]}}]}})", i);
                 }) +
          "]}",
      // One choice within the other.
      R"({"$ref": "#/$defs/d0", "$defs": {)" +
          repeat(40,
                 [](int i) {
                   return fmt::format(R"("d{}": {{"anyOf": [{{"$ref": "#/$defs/d{}"}}, {{"$ref": "#/$defs/d{}"}}]}})",
                                      i, i + 1, i + 1);
                 }) +
          R"(, "d40": {"type": "null"}}})",
      // A long chain.
      R"({"$ref": "#/$defs/d0", "$defs": {)" +
          repeat(1000, [](int i) { return fmt::format(R"("d{}": {{"$ref": "#/$defs/d{}"}})", i, i + 1); }) +
          R"(, "d1000": {}}})",
      // Members that intersect to ever new ones.
      R"({"$ref": "#/$defs/d0", "$defs": {)" +
          repeat(
              12,
              [](int i) {
                return fmt::format(
                    R"("d{0}": {{"allOf": [{{"properties": {{"a": {{"$ref": "#/$defs/d{1}"}}, "b": {{"$ref": "#/$defs/d{2}"}}}}}},
              {{"properties": {{"a": {{"$ref": "#/$defs/d{3}"}}, "b": {{"$ref": "#/$defs/d{1}"}}}}}}]}})",
                    i, (i + 1) % 12, (i * 5 + 2) % 12, (i * 7 + 3) % 12);
              }) +
          "}}",
      // Many patterns at once, each of many states.
      R"({"anyOf": [)" +
          repeat(200,
                 [](int i) {
                   return fmt::format(R"({{"type": "string", "pattern": "^(.{{0,90}}x){{{}}}$"}})", i % 40 + 1);
                 }) +
          "]}",
      R"({"type": "string", "allOf": [)" +
          repeat(200, [](int i) { return fmt::format(R"({{"pattern": "a.{{{}}}b"}})", i); }) + "]}",
      // Many branches of a oneOf.
      R"({"oneOf": [)" +
          repeat(250,
                 [](int i) {
                   return fmt::format(
                       R"({{"properties": {{"k": {{"const": {}}}}}, "required": ["k"], "type": "object"}})", i);
                 }) +
          "]}",
      R"({"oneOf": [)" + repeat(800, [](int i) { return fmt::format(R"({{"const": {}}})", i); }) + "]}",
      // Many values and members.
      R"({"enum": [)" + repeat(6000, [](int i) { return fmt::format(R"("v{}")", i); }) + "]}",
      R"({"type": "object", "properties": {)" +
          repeat(2000, [](int i) { return fmt::format(R"("p{}": {{"type": "integer", "minimum": {}}})", i, i); }) +
          "}}",
      R"({"type": "object", "minProperties": 150, "properties": {)" +
          repeat(1000, [](int i) { return fmt::format(R"("p{}": {{}})", i); }) + R"(}, "additionalProperties": false})",
      R"({"type": "array", "minItems": 1000000, "items": {"type": "array", "minItems": 1000000, "items": {"type": "array", "minItems": 1000000}}})",
      // The cheapest way is known last.
      R"({"anyOf": [)" + repeat(200, [](int i) { return fmt::format(R"({{"$ref": "#/$defs/d{}"}})", i); }) +
          R"(], "$defs": {"d0": {"type": "null"},)" +
          repeat(199,
                 [](int i) {
                   return fmt::format(
                       R"("d{}": {{"type": "array", "items": {{"$ref": "#/$defs/d{}"}}, "minItems": 1}})", i + 1, i);
                 }) +
          "}}",
      std::string(60, '[')};
  for (const std::string& schema : schemas) {
    const auto constraint = json_schema_constraint(toytown().vocabulary, schema);
    if (!constraint) {
      EXPECT_TRUE(constraint.error().code == Code::kUnimplemented || constraint.error().code == Code::kInvalidArgument);
      EXPECT_LT(constraint.error().message.size(), 500U);
      continue;
    }
    const auto state = (*constraint)->start();
    TokenMask mask(toytown().size);
    for (std::int64_t remaining = 40; remaining > 0; --remaining) {
      state->mask(remaining, mask);
      const auto ids = test::allowed(mask);
      if (ids.empty()) break;
      state->accept(ids[static_cast<std::size_t>(remaining) * 7919 % ids.size()]);
    }
  }
}

// Ambiguous and recursive: the positions stay few, the text still ends.
TEST(JsonSchema, AmbiguityIsBounded) {
  std::string branches;
  for (int i = 0; i < 8; ++i)
    branches +=
        fmt::format(R"({}{{"type": "array", "items": {{"$ref": "#"}}, "maxItems": {}}})", i == 0 ? "" : ",", 10 + i);
  const auto constraint = must(json_schema_constraint(toytown().vocabulary, R"({"anyOf": [)" + branches + "]}"));
  const auto state = constraint->start();
  auto& inner = dynamic_cast<SequenceState&>(*state);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(inner.accept_byte('['));
  EXPECT_EQ(inner.cost(), 40);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(inner.accept_byte(']'));
  EXPECT_TRUE(state->may_end());
}

}  // namespace
}  // namespace chiasm
