// What may be written, document by document: whole documents are, and a wrong byte is refused where it stands.
#include <gtest/gtest.h>

#include "grammar/sequence_state.h"
#include "grammar/test_languages.h"

namespace chiasm {
namespace {

using test::compile;
using test::Language;
using test::qwen2;
using test::toytown;

// The tokens of `ids` one after another, each as the masks allow it.
void expect_written(const Language& language, const TokenConstraint& constraint, const std::vector<std::int32_t>& ids,
                    const std::string& what) {
  const auto state = constraint.start();
  TokenMask mask(language.size);
  std::string text;
  for (const std::int32_t id : ids) {
    state->mask(1000, mask);
    ASSERT_TRUE(mask.test(id)) << what << ": behind '" << text << "', token '" << language.tokenizer.token_bytes(id)
                               << "'";
    state->accept(id);
    text += language.tokenizer.token_bytes(id);
  }
  EXPECT_TRUE(state->may_end()) << what;
}

std::vector<std::int32_t> byte_tokens(const Language& language, std::string_view text) {
  std::vector<std::int32_t> out;
  for (const char c : text) out.push_back(language.byte_token(c));
  return out;
}

// How many bytes of the text are allowed; one more than all when it may end there.
std::size_t bytes_allowed(const TokenConstraint& constraint, std::string_view text) {
  const auto state = constraint.start();
  TokenMask mask(toytown().size);
  for (std::size_t i = 0; i < text.size(); ++i) {
    state->mask(1000, mask);
    const std::int32_t id = toytown().byte_token(text[i]);
    if (!mask.test(id)) return i;
    state->accept(id);
  }
  return text.size() + (state->may_end() ? 1 : 0);
}

struct Case {
  std::string schema;
  std::vector<std::string> good;
  std::vector<std::string> bad;  // "^" stands before the byte that is refused; at the end: it may not end
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {R"({"type": "object"})",
       {"{}", "{ }", R"({"a": 1, "b": [true, null, {"c": "d"}], "e": -1.5e3})", R"({"a":{"a":{"a":[]}}})",
        "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": [\n      1,\n      2\n    ]\n  }\n}", "{\n\t\"a\": \"b\"\n}",
        R"({"\"q\"": "\u00e9\ud83d\ude00 \/\b", "é": "日本"})"},
       {"^[1]",
        "^ {}",
        "{^,}",
        R"({"a":1,^})",
        R"({"a":1,"a^":2})",
        R"({"\^u0061":1})",
        R"({"a":0^1})",
        R"({"a":^+1})",
        R"({"a":-^}})",
        R"({"a":1.^}})",
        R"({"a":t^x})",
        R"({"a":"\^x"})",
        R"({"a":"\ud83d^"})",
        R"({"a":"\ud83d\u^0041"})",
        R"({"a":"\ud^d00"})",
        "{\"a\":\"^\n\"}",
        "{\"a\":\"\xC3^\"}",
        "{\"a\":\"^\xC0\xAF\"}",
        "{\"a\":\"\xED^\xA0\x80\"}",
        "{\"a\":\"\xF4^\x90\"}",
        "{\"a\":\"^\xF5\"}",
        "{\"a\":\"^\xFF\"}",
        "{}^ ",
        "{}^\n",
        "{ ^ }",
        "{\n^\n}",
        R"({"a"^ :1})",
        R"({"a":1 ^,"b":2})",
        R"({"a": ^ 1})",
        R"({"a":1^]})",
        "{^"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "boolean"}},
           "required": ["b"], "additionalProperties": false})",
       {R"({"b": ""})", R"({"a": 1, "b": "x"})", R"({"a":1,"b":"x","c":false})", R"({"b":"x","c":true})"},
       {"{^}", R"({"a":1^})", R"({"b":"","^a":1})", R"({"^c":true})", R"({"b":"x","c":true^,})", R"({"a":1^.0})",
        R"({"^d":1})", R"({"a":^"1"})", R"({"b":"x","c":^1})"}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]})",
       {R"({"a": null})", R"({"a": null, "b": 1, "c": {"a": 1}})"},
       {R"({"^b":1,"a":null})", R"({"a":null,"a^":1})", R"({"a":null,"b":1,"b^":1})"}},
      {R"({"type": "integer", "minimum": -120, "maximum": 45})",
       {"0", "7", "45", "-1", "-120", "-99", "10"},
       {"4^6", "-12^1", "0^0", "-^0", "1^.0", "1^e1", "^+1", "12^0", "-120^0"}},
      {R"({"type": "number", "minimum": 0, "maximum": 1})",
       {"0", "1", "0.5", "1.0", "1.000", "0.25000001"},
       {"^2", "1^2", "1.0^1", "0^1", "^-", "0.5^e1"}},
      {R"({"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5})",
       {"0.5", "1", "12.0", "3.5"},
       {"0^", "0.^0", "0.^4", "^-"}},
      {R"({"enum": ["red", "green", 12, 1, null, {"a": [1]}]})",
       {R"("red")", R"("green")", "12", "1", "null", R"({"a": [1]})", "{\"a\":[1]}"},
       {R"("r^x")", "12^3", "^2", "n^o", R"({"a":[1^,2]})", R"({"a":[^2]})", R"("red"^ )"}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("ab")", R"("日本語")", R"("\n\ud83d\ude00a")", R"("\\\\\"")"},
       {R"("a^")", R"("abc^d")", R"("日本語^語")", R"("abc^\n")", R"("😀^")", R"("\ud83d\ude00^")"}},
      {R"({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"})",
       {R"("AB-1")", R"("XY-0123")"},
       {R"("A^1)", R"("AB-^")", R"("AB-1^-)"}},
      {R"({"type": "string", "pattern": "b+"})", {R"("b")", R"("aba\n\"é")"}, {R"("a^")", R"("^")"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2024-02-29")", R"("1999-12-31")", R"("2000-02-29")"},
       {R"("2023-02-2^9")", R"("1900-02-2^9")", R"("2023-1^3)", R"("2023-04-3^1)", R"("000^0-)", R"("2023-01-01^ )"}},
      {R"({"type": "string", "format": "ipv6"})",
       {R"("::")", R"("::1")", R"("1:2:3:4:5:6:7:8")", R"("fe80::1:2")", R"("1::")"},
       {R"("1:2:3:4:5:6:7:8^:)", R"("1::2:^:)", R"("1234^5)", R"("1:2^")"}},
      {R"({"type": "string", "format": "email"})",
       {R"("a@b.org")", R"("first.last+tag@mail.example.com")"},
       {R"("^@)", R"("a.^.)", R"("a@b^")", R"("a@^-)"}},
      {R"({"type": "string", "format": "duration"})",
       {R"("P1D")", R"("PT5M")", R"("P1Y2M3DT4H5M6S")", R"("P2W")"},
       {R"("P^")", R"("PT^")", R"("P1DT^")"}},
      {R"({"type": "string", "format": "something else"})", {R"("anything")"}, {}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2})",
       {"[1]", "[1, 2]", "[\n  1,\n  2\n]"},
       {"[^]", "[1,2^,3]", "[1,^]", "[^\"\"]"}},
      {R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "null"}})",
       {"[]", R"(["a"])", R"(["a", 1])", R"(["a", 1, null, null])"},
       {"[^1]", R"(["a",^"b"])", R"(["a",1,^1])"}},
      {R"({"items": [{"type": "string"}], "additionalItems": false})", {R"([])", R"(["a"])"}, {R"(["a"^,])", "^{}"}},
      {R"({"type": "array", "uniqueItems": true, "items": {"enum": ["a", "ab", 1]}})",
       {"[]", R"(["a", "ab", 1])", R"(["ab", "a"])"},
       {R"(["a","a^",)", R"([1,^1])", R"(["a","ab",1^,])"}},
      {R"({"anyOf": [{"type": "object", "properties": {"k": {"const": "x"}, "n": {"type": "integer"}}, "required": ["k", "n"],
           "additionalProperties": false}, {"type": "object", "properties": {"k": {"const": "y"}, "s": {"type": "string"}},
           "required": ["k", "s"], "additionalProperties": false}]})",
       {R"({"k": "x", "n": 1})", R"({"k":"y","s":"t"})"},
       {R"({"k":"x","^s":"t"})", R"({"k":"^z"})", R"({"^n":1})"}},
      {R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"}, "kids":
           {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["v", "kids"], "additionalProperties": false}}})",
       {R"({"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]})"},
       {R"({"v":1,"kids":[^1]})", R"({"v":1^})"}},
      {R"({"type": ["object", "null"], "properties": {"a": {"type": ["integer", "string"]}}, "additionalProperties": false})",
       {"null", "{}", R"({"a": 1})", R"({"a": "b"})"},
       {"^1", R"({"a":^n})"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"enum": ["x", "yy"]}})",
       {"{}", R"({"x": 1})", R"({"x":1,"yy":2})", R"({"yy":2})"},
       {R"({"^z":1})", R"({"x":^"a"})"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}}, "minProperties": 2})",
       {R"({"a":1,"b":2})", R"({"b":1,"c":2})"},
       {"{^}", R"({"a":1^})"}},
      {"true", {"1", "[]", "{}", "\"\"", "null"}, {"^x"}},
      {R"({"const": "a/b"})", {R"("a/b")"}, {R"("a^\/b")"}},
      // What pydantic writes for a model with an optional member and a nested one.
      {R"({"$defs": {"Colour": {"enum": ["red", "blue"], "title": "Colour", "type": "string"}, "Car": {"properties": {"colour":
           {"$ref": "#/$defs/Colour"}, "plate": {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}], "default": null,
           "title": "Plate"}}, "required": ["colour"], "title": "Car", "type": "object"}}, "properties": {"count": {"description":
           "how many", "minimum": 0, "title": "Count", "type": "integer"}, "cars": {"items": {"$ref": "#/$defs/Car"}, "title":
           "Cars", "type": "array"}}, "required": ["count", "cars"], "title": "Scene", "type": "object",
           "additionalProperties": false})",
       {R"({"count": 2, "cars": [{"colour": "red"}, {"colour": "blue", "plate": null}]})",
        "{\n  \"count\": 0,\n  \"cars\": []\n}"},
       {R"({"count":^-1})", R"({"count":1,"cars":[{"colour":"^green"}]})"}},
      // Two references to parts of one model, as allOf.
      {R"({"allOf": [{"$ref": "#/definitions/a"}, {"properties": {"y": {"maximum": 5}}, "required": ["y"]}],
           "definitions": {"a": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "integer", "minimum": 3}},
           "additionalProperties": false}}})",
       {R"({"x": "", "y": 4})", R"({"y": 5})"},
       {R"({"y":^6})", R"({"y":^2})", R"({"x":""^})"}},
      // A oneOf by a member that has a default: it is always written.
      {R"({"oneOf": [{"properties": {"t": {"const": "a"}}, "type": "object"}, {"properties": {"t": {"const": "b"}}, "type": "object"}]})",
       {R"({"t": "a"})", R"({"t": "b", "x": 1})"},
       {"{^}", R"({"^x":1})"}},
  };
  return all;
}

TEST(Documents, AreWrittenByTokens) {
  for (const Language* language : {&toytown(), qwen2()}) {
    if (language == nullptr) continue;
    for (const Case& one : cases()) {
      const auto constraint = compile(*language, one.schema);
      for (const std::string& document : one.good)
        expect_written(*language, *constraint, language->tokenizer.encode(document), one.schema + "\n" + document);
    }
  }
}

TEST(Documents, AreWrittenByBytes) {
  for (const Case& one : cases()) {
    const auto constraint = compile(toytown(), one.schema);
    for (const std::string& document : one.good)
      expect_written(toytown(), *constraint, byte_tokens(toytown(), document), one.schema + "\n" + document);
  }
}

TEST(Documents, AreRefusedAtTheWrongByte) {
  for (const Case& one : cases()) {
    const auto constraint = compile(toytown(), one.schema);
    for (const std::string& marked : one.bad) {
      const std::size_t at = marked.find('^');
      const std::string text = marked.substr(0, at) + marked.substr(at + 1);
      EXPECT_EQ(bytes_allowed(*constraint, text), at) << one.schema << "\n" << marked;
    }
  }
}

// Names may not come twice, however many there are.
TEST(Documents, NamesOfOneLetterRunOut) {
  const auto constraint = compile(toytown(), R"({"additionalProperties": {"const": 1}})");
  std::string text = R"({"":1)";
  for (int i = 0; i < 62; ++i)
    text += fmt::format(R"(,"{}":1)", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[i]);
  EXPECT_EQ(bytes_allowed(*constraint, text + "}"), text.size() + 2);
  EXPECT_EQ(bytes_allowed(*constraint, text + R"(,"7":)"), text.size() + 3);
  EXPECT_EQ(bytes_allowed(*constraint, text + R"(,"77":1})"), text.size() + 9);
}

// A union of many branches loses none of them on the way to the member that tells them apart.
TEST(Documents, OfManyBranches) {
  std::string branches;
  for (int i = 0; i < 250; ++i)
    branches += fmt::format(
        R"({}{{"type": "object", "properties": {{"type": {{"const": "event_{}"}}, "n{}": {{"type": "integer"}}}}, "required":
           ["type", "n{}"], "additionalProperties": false}})",
        i == 0 ? "" : ",", i, i, i);
  for (const char* kind : {"anyOf", "oneOf"}) {
    const auto constraint = compile(toytown(), fmt::format(R"({{"{}": [{}]}})", kind, branches));
    for (const int i : {0, 1, 77, 128, 249})
      expect_written(toytown(), *constraint,
                     toytown().tokenizer.encode(fmt::format("{{\n  \"type\": \"event_{}\",\n  \"n{}\": 5\n}}", i, i)),
                     kind);
  }
}

}  // namespace
}  // namespace chiasm
