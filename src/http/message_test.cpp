#include "http/message.h"

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "http/sse.h"

namespace chiasm {
namespace {

TEST(Headers, CompareWithoutCase) {
  Headers headers = {{"Content-Type", "a"}, {"X", "1"}, {"x", "2"}};
  EXPECT_EQ(headers.find("CONTENT-type"), "a");
  EXPECT_EQ(headers.find("x"), "1");
  EXPECT_FALSE(headers.find("Content"));
  headers.set("x", "3");
  EXPECT_EQ(headers.all().size(), 2U);
  EXPECT_EQ(headers.find("X"), "3");
}

TEST(Sse, EventsAreFramed) {
  EXPECT_EQ(sse_data("{\"a\":1}"), "data: {\"a\":1}\n\n");
  EXPECT_EQ(sse_comment("ping"), ": ping\n\n");
  EXPECT_EQ(sse_data(""), "data: \n\n");
  EXPECT_EQ(sse_headers().find("content-type"), "text/event-stream; charset=utf-8");
}

TEST(Sse, ALineBreakEndsNoEvent) {
  EXPECT_EQ(sse_data("a\n\nevent: b"), "data: a\ndata: \ndata: event: b\n\n");
  EXPECT_EQ(sse_data("a\r\nb\rc"), "data: a\ndata: b\ndata: c\n\n");
  EXPECT_EQ(sse_comment("a\ndata: b"), ": a\n: data: b\n\n");
}

TEST(HasCurrent, ComparesWeaklyAndReadsLists) {
  const auto current = [](const std::string& header) {
    HttpRequest request;
    request.headers.add("If-None-Match", header);
    return has_current(request, "\"abc\"");
  };
  EXPECT_TRUE(current("\"abc\""));
  EXPECT_TRUE(current("W/\"abc\""));  // as proxies that compress make it
  EXPECT_TRUE(current("\"x\" , W/\"abc\""));
  EXPECT_TRUE(current("*"));
  EXPECT_FALSE(current("\"abcd\""));
  EXPECT_FALSE(current("abc"));
  EXPECT_FALSE(current(", ,"));
  EXPECT_FALSE(has_current({}, "\"abc\""));
}

}  // namespace
}  // namespace chiasm
