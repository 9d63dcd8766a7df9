// The parser of requests and its parts: heads as they come, targets, bodies, routes.
#include "http/request_parser.h"

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "http/router.h"
#include "http/target.h"

namespace chiasm {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

tl::expected<std::optional<RequestHead>, Refusal> parse(std::string_view bytes) {
  RequestParser parser(1000, 10);
  return parser.head(bytes);
}

TEST(RequestParser, TakesTheHeadWhenAllOfItHasCome) {
  const std::string bytes =
      "\r\nPOST http://h/a%2Bb/?c=d+e&&f&g=%26 HTTP/1.1\r\nHost: h\r\nX: \t y z \r\nContent-Length: 3\r\nExpect: "
      "100-Continue\r\n\r\nabc";
  RequestParser parser(1000, 10);
  const std::size_t head_size = bytes.size() - 3;
  for (std::size_t size = 0; size < head_size; ++size) {
    const auto head = parser.head(std::string_view(bytes).substr(0, size));
    ASSERT_TRUE(head && !*head) << size;
  }
  const auto parsed = parser.head(bytes);
  ASSERT_TRUE(parsed && *parsed);
  const RequestHead& head = **parsed;
  EXPECT_EQ(head.bytes, head_size);
  EXPECT_EQ(head.request.method, "POST");
  EXPECT_EQ(head.request.path, "/a+b/");
  EXPECT_EQ(head.segments, (std::vector<std::string>{"a+b", ""}));
  EXPECT_EQ(head.request.query, (Pairs{{"c", "d e"}, {"f", ""}, {"g", "&"}}));
  EXPECT_EQ(head.request.headers.find("x"), "y z");
  EXPECT_EQ(head.content_length, 3U);
  EXPECT_TRUE(head.expects_continue);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_TRUE(head.has_body());
}

TEST(RequestParser, KnowsWhenTheConnectionEnds) {
  EXPECT_FALSE((*parse("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n"))->keep_alive);
  EXPECT_FALSE((*parse("GET / HTTP/1.0\r\n\r\n"))->keep_alive);
  EXPECT_TRUE((*parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))->keep_alive);
}

TEST(RequestParser, NamesTheStatusOfARefusal) {
  EXPECT_EQ(parse("GET /" + std::string(1000, 'a')).error().status, 414);
  EXPECT_EQ(parse("GET / HTTP/1.1\r\nX: " + std::string(1000, 'a')).error().status, 431);
  EXPECT_EQ(parse("GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n").error().status, 417);
  EXPECT_EQ(parse("\x16\x03\x01").error().status, 400);
  EXPECT_EQ(parse("\r\n\r\n").error().status, 400);
}

TEST(Target, SegmentsAreDecodedAfterTheyAreTakenApart) {
  EXPECT_EQ(must(parse_target("/")).segments, std::vector<std::string>{""});
  EXPECT_EQ(must(parse_target("/a//b%3Fc")).segments, (std::vector<std::string>{"a", "", "b?c"}));
  EXPECT_EQ(must(parse_target("/v1/Org%2fName")).segments, (std::vector<std::string>{"v1", "Org/Name"}));
  EXPECT_EQ(must(parse_target("/a+b")).path, "/a+b");
  EXPECT_EQ(must(parse_target("/...")).path, "/...");
  EXPECT_EQ(must(parse_target("HTTPS://host")).path, "/");
  EXPECT_EQ(must(parse_target("https://host?a=b")).query, (Pairs{{"a", "b"}}));
  EXPECT_EQ(must(parse_target("/?a=b=c&=d&e%3d=f?/")).query, (Pairs{{"a", "b=c"}, {"", "d"}, {"e=", "f?/"}}));
  for (const std::string text : {"",        "*",        "a",     "host:80", "?a",   "/%",      "/%1",     "/%g0",
                                 "/%00",    "/a%0d%0a", "/%7f",  "/.",      "/..",  "/a/../b", "/%2e%2e", "/.%2E/",
                                 "/a%2F..", "/..%2Fa",  "/?a=%", "/?%00=b", "/a#b", "/?a#b",   "ftp://h/"})
    EXPECT_FALSE(parse_target(text)) << text;
  std::string many = "/?";
  for (int i = 0; i < 257; ++i) many += "a=b&";
  EXPECT_FALSE(parse_target(many));
}

// The whole text at once, then byte by byte: both must find the same.
std::pair<BodyDecoder::Verdict, std::string> decode(std::string_view text, std::uint64_t max_body) {
  BodyDecoder whole(BodyDecoder::Kind::kChunked, 0, max_body), split(BodyDecoder::Kind::kChunked, 0, max_body);
  std::string body, split_body;
  std::string_view rest = text;
  const auto verdict = whole.feed(rest, body);
  auto split_verdict = BodyDecoder::Verdict::kMore;
  std::size_t used = 0;
  while (used < text.size() && split_verdict == BodyDecoder::Verdict::kMore) {
    std::string_view one = text.substr(used++, 1);
    split_verdict = split.feed(one, split_body);
  }
  EXPECT_EQ(verdict, split_verdict) << text;
  EXPECT_EQ(body, split_body) << text;
  EXPECT_EQ(text.size() - rest.size(), used) << text;
  return {verdict, body};
}

TEST(BodyDecoder, TakesChunksWholeAndSplit) {
  using Verdict = BodyDecoder::Verdict;
  EXPECT_EQ(decode("0\r\n\r\n", 0), std::pair(Verdict::kDone, std::string()));
  EXPECT_EQ(decode("3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n000\r\nA: b\r\nC: d\r\n\r\n", 13),
            std::pair(Verdict::kDone, std::string("abc0123456789")));
  EXPECT_EQ(decode("3\r\nab", 3), std::pair(Verdict::kMore, std::string("ab")));
  EXPECT_EQ(decode("3\r\nabc\r\n1\r\nd", 3).first, Verdict::kTooLarge);
  for (const std::string text : {"\r\n", ";\r\n", "g\r\n", "1\n", "1\r\r", "1 \n", "1\r\naX", "1\r\na\rX", "0\r\nA\n",
                                 "0\r\n\rX", "0000000000000001\r\n"})
    EXPECT_EQ(decode(text, 100).first, Verdict::kMalformed) << text;
}

TEST(Router, PrefersLiteralSegments) {
  const Handler handler = [](Exchange&) {};
  const Router router({{"GET", "/v1/{id}/x", handler},
                       {"GET", "/v1/{id}", handler},
                       {"GET", "/v1/all", handler},
                       {"PUT", "/v1/{name}", handler}});
  const auto route = [&](std::string_view method, const std::vector<std::string>& segments) {
    const auto match = router.match(method, segments);
    return match.route == nullptr ? "none: " + match.allow : match.route->pattern;
  };
  EXPECT_EQ(route("GET", {"v1", "all"}), "/v1/all");
  EXPECT_EQ(route("HEAD", {"v1", "all"}), "/v1/all");
  EXPECT_EQ(route("PUT", {"v1", "all"}), "/v1/{name}");
  EXPECT_EQ(route("GET", {"v1", "other"}), "/v1/{id}");
  EXPECT_EQ(route("GET", {"v1", ""}), "none: ");
  EXPECT_EQ(route("GET", {"v1"}), "none: ");
  EXPECT_EQ(route("GET", {"v1", "a", "x"}), "/v1/{id}/x");
  EXPECT_EQ(route("POST", {"v1", "all"}), "none: GET, HEAD, PUT");
  EXPECT_EQ(router.match("GET", {"v1", "{id}"}).captures, (Pairs{{"id", "{id}"}}));
}

}  // namespace
}  // namespace chiasm
