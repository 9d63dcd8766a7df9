#include "base/log.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"

namespace chiasm {
namespace {

using testing::ElementsAre;

std::vector<std::string> lines_of(LogLevel level, LogFormat format, const std::function<void(Log&)>& use) {
  std::vector<std::string> out;
  Log log(level, format, [&](std::string_view line) { out.emplace_back(line); });
  use(log);
  return out;
}

TEST(Log, FieldsAndLevels) {
  EXPECT_THAT(lines_of(LogLevel::kInfo, LogFormat::kText,
                       [](Log& log) {
                         log.debug("not said");
                         log.info("request", {{"status", "200"}, {"route", "/v1/ask"}});
                         log.warn("plain");
                       }),
              ElementsAre("request status=200 route=/v1/ask", "plain"));
  EXPECT_TRUE(lines_of(LogLevel::kOff, LogFormat::kText, [](Log& log) { log.error("no"); }).empty());
}

TEST(Log, WhatComesFromOutsideStaysOnOneLineAndInItsField) {
  EXPECT_THAT(
      lines_of(LogLevel::kInfo, LogFormat::kText,
               [](Log& log) { log.info("a\nb", {{"path", "/x y\nstatus=500"}, {"empty", ""}, {"bad", "\xff"}}); }),
      ElementsAre("a\\nb path=\"/x y\\nstatus=500\" empty=\"\" bad=\"\xEF\xBF\xBD\""));
}

TEST(Log, JsonLinesParse) {
  const auto lines = lines_of(LogLevel::kInfo, LogFormat::kJson, [](Log& log) {
    log.info("a \"b\"", {{"path", "/x\n"}, {"id", "3"}, {"n", 3}, {"ms", 2.25}, {"left", true}});
  });
  ASSERT_EQ(lines.size(), 1U);
  const auto json = Json::parse("{" + lines[0] + "}", "line");
  ASSERT_TRUE(json) << lines[0];
  EXPECT_EQ(json->root().at("event")->string().value(), "a \"b\"");
  EXPECT_EQ(json->root().at("path")->string().value(), "/x\n");
  EXPECT_EQ(json->root().at("id")->string().value(), "3");
  EXPECT_EQ(json->root().at("n")->integer().value(), 3);
  EXPECT_NE(lines[0].find(R"("ms":2.2,"left":true)"), std::string::npos) << lines[0];
}

}  // namespace
}  // namespace chiasm
