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
