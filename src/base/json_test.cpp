#include "base/json.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::HasSubstr;

Json parsed(std::string_view text) { return Json::parse(text, "t.json").value(); }

TEST(Json, TypedReads) {
  const Json json = parsed(R"({"i": -3, "u": 18446744073709551615, "d": 1.5, "b": true, "s": "x\u00e9\n", "n": null})");
  const JsonValue root = json.root();
  EXPECT_EQ(root.at("i")->integer().value(), -3);
  EXPECT_EQ(root.at("i")->number().value(), -3.0);
  EXPECT_EQ(root.at("d")->number().value(), 1.5);
  EXPECT_TRUE(root.at("b")->boolean().value());
  EXPECT_EQ(root.at("s")->string().value(), "x\xC3\xA9\n");
  EXPECT_TRUE(root.at("n")->is_null());
  EXPECT_EQ(root.at("u")->kind(), JsonValue::Kind::kUnsigned);
  EXPECT_FALSE(root.at("u")->integer().has_value());  // above 2^63
  EXPECT_FALSE(root.find("absent").has_value());
}

TEST(Json, ErrorsNameFileFieldAndWhatCame) {
  const Json json = parsed(R"({"a": {"b": [1, {"c": "text"}]}, "z": 7})");
  const JsonValue c = *(*json.root().at("a")->at("b")->elements())[1].find("c");
  EXPECT_EQ(c.where(), "t.json: field 'a.b[1].c'");
  EXPECT_EQ(c.integer().error().message, "t.json: field 'a.b[1].c': expected an integer, got a string");
  EXPECT_EQ(json.root().where(), "t.json");
  EXPECT_THAT(json.root().at("q").error().message, HasSubstr("t.json: field 'q' is missing"));
  EXPECT_EQ(json.root().at("q").error().code, Code::kNotFound);
  EXPECT_THAT(json.root().at("z")->integer(0, 6).error().message, HasSubstr("from 0 to 6, got 7"));
  EXPECT_EQ(json.root().at("z")->integer(7, 7).value(), 7);
  EXPECT_THAT(json.root().at("z")->at("y").error().message, HasSubstr("expected an object, got an integer"));
  EXPECT_THAT(json.root().at("z")->members().error().message, HasSubstr("expected an object"));
  EXPECT_THAT(json.root().at("z")->elements().error().message, HasSubstr("expected an array"));
  EXPECT_THAT(json.root().at("a")->boolean().error().message, HasSubstr("expected true or false, got an object"));
  EXPECT_THAT(json.root().at("a")->number().error().message, HasSubstr("expected a number"));
  EXPECT_THAT(json.root().at("z")->string().error().message, HasSubstr("expected a string"));
}

TEST(Json, EqualValuesKeepTheirOwnPlaces) {
  const Json json = parsed(R"({"a": [1, 1], "b": 1})");
  EXPECT_EQ((*json.root().at("a")->elements())[1].where(), "t.json: field 'a[1]'");
  EXPECT_EQ(json.root().at("b")->where(), "t.json: field 'b'");
}

TEST(Json, MembersKeepOrderAndDuplicates) {
  const Json json = parsed(R"({"b": 1, "a": 2, "b": 3})");
  const auto members = json.root().members().value();
  ASSERT_EQ(members.size(), 3U);
  EXPECT_EQ(members[0].first, "b");
  EXPECT_EQ(members[2].second.integer().value(), 3);
}

TEST(Json, MovedDocumentKeepsItsValues) {
  Json first = parsed(R"({"a": 5})");
  const JsonValue value = first.root().at("a").value();
  const Json second = std::move(first);
  EXPECT_EQ(value.integer().value(), 5);
  EXPECT_EQ(value.where(), "t.json: field 'a'");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const std::string_view text :
       {"", " ", "{", "[1,]", "{\"a\":1} x", "nul", "\"\xFF\"", "{a:1}", "1e999", "'x'", "[01]"})
    EXPECT_EQ(Json::parse(text, "t.json").error().code, Code::kInvalidArgument) << text;
}

TEST(Json, DepthIsLimited) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(Json::parse(nested(60), "t.json").has_value());
  EXPECT_FALSE(Json::parse(nested(65), "t.json").has_value());
  EXPECT_FALSE(Json::parse(nested(100000), "t.json").has_value());
}

TEST(Json, DepthIsTheCallersToChoose) {
  const auto depth = [](std::string_view text, std::size_t limit) {
    const auto json = Json::parse(text, "body", limit);
    return json ? std::string("fits") : json.error().message;
  };
  EXPECT_EQ(depth("[[1]]", 3), "fits");
  EXPECT_EQ(depth(R"({"a":[1]})", 3), "fits");
  EXPECT_EQ(depth("[[1]]", 2), "body: not valid JSON: it is nested deeper than 2 levels");
  EXPECT_EQ(depth(R"({"a":{"b":[1]}})", 3), "body: not valid JSON: it is nested deeper than 3 levels");
  EXPECT_EQ(depth("1", 0), "fits");
  EXPECT_NE(depth(std::string(5000, '['), 1 << 20), "fits");
}

TEST(Json, SaysWhatIsWrongInWordsOfItsOwn) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"", "it is empty"},
      {"\"\xFF\"", "it is not UTF-8"},
      {"[1e999]", "a number that is malformed or too large"},
      {"[123456789012345678901234567890]", "a number that is malformed or too large"},
      {"[nul]", "a word that is not true, false or null"},
      {"[tru]", "a word that is not true, false or null"},
      {"\"ab", "a string without an end"},
      {R"(["\x"])", "a string with an unknown escape"},
      {"[\"a\nb\"]", "a string with control characters that are not escaped"},
      {"{\"a\":1", "a bracket, comma, colon or value is missing or out of place"},
      {"[NaN]", "a bracket, comma, colon or value is missing or out of place"}};
  for (const auto& [text, said] : cases)
    EXPECT_EQ(Json::parse(text, "body").error().message, "body: not valid JSON: " + std::string(said)) << text;
}

TEST(Json, SizesAndText) {
  const Json json =
      parsed(R"( {"a" : [1, 2.50, -3, true, null, "x\u00e9\n\"/"], "o": {"k" : {}}, "u": 18446744073709551615} )");
  const JsonValue root = json.root();
  EXPECT_EQ(root.size(), 3U);
  EXPECT_EQ(root.at("a")->size(), 6U);
  EXPECT_EQ(root.at("u")->size(), 0U);
  EXPECT_EQ(root.at("u")->unsigned_integer().value(), 18446744073709551615U);
  EXPECT_EQ(root.at("a")->elements()->at(0).unsigned_integer().value(), 1U);
  EXPECT_THAT(root.at("a")->elements()->at(2).unsigned_integer().error().message,
              HasSubstr("field 'a[2]': expected an integer that is not negative, got an integer"));
  EXPECT_EQ(root.text(),
            "{\"a\":[1,2.5,-3,true,null,\"x\xC3\xA9\\n\\\"/\"],\"o\":{\"k\":{}},\"u\":18446744073709551615}");
  EXPECT_EQ(Json::parse(root.text(), "again")->root().text(), root.text());
}

TEST(Json, LoadHasALimit) {
  const std::string path = testing::TempDir() + "/json_test.json";
  std::ofstream(path) << "{\"a\": 1}";
  EXPECT_EQ(Json::load(path, 8)->root().at("a")->where(), path + ": field 'a'");
  EXPECT_EQ(Json::load(path, 7).error().code, Code::kResourceExhausted);
  std::filesystem::remove(path);
  EXPECT_EQ(Json::load(path, 8).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace chiasm
