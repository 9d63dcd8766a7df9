// fetch(): which URLs are asked, and what becomes of redirects.
#include <atomic>

#include <gmock/gmock.h>

#include "base/test_support.h"
#include "http/client.h"
#include "http/server.h"
#include "http/test_server.h"

namespace chiasm {
namespace {

using testing::HasSubstr;
using testing::Not;

class FetchTest : public testing::Test {
 protected:
  FetchTest() {
    const auto redirect = [](int status) {
      return [status](Exchange& exchange) {
        HttpResponse response = HttpResponse::text(status, "elsewhere");
        response.headers.add("Location", std::string(exchange.request().query_value("to").value_or("/picture")));
        exchange.respond(std::move(response));
      };
    };
    std::vector<Route> routes = {
        {"GET", "/picture",
         [this](Exchange& exchange) {
           ++pictures_;
           exchange.respond({200, {}, "picture " + std::string(exchange.request().query_value("n").value_or(""))});
         }},
        {"GET", "/a/b/picture", [](Exchange& exchange) { exchange.respond({200, {}, "deep"}); }},
        {"GET", "/missing", [](Exchange& exchange) { exchange.respond({404, {}, "no"}); }},
        {"GET", "/empty", [](Exchange& exchange) { exchange.respond({204, {}, ""}); }},
        {"GET", "/nowhere", [](Exchange& exchange) { exchange.respond({302, {}, ""}); }},
        {"GET", "/large", [](Exchange& exchange) { exchange.respond({200, {}, std::string(5000, 'x')}); }},
        {"GET", "/loop", [](Exchange& exchange) { exchange.respond({302, {{"Location", "/loop"}}, ""}); }},
        {"GET", "/a/b/relative", redirect(302)},
    };
    for (const int status : {301, 302, 303, 307, 308})
      routes.push_back({"GET", "/" + std::to_string(status), redirect(status)});
    server_ = must(HttpServer::start({}, std::move(routes)));
    rules_.domains = {"127.0.0.1"};
    rules_.private_networks = true;
    rules_.max_body = 1000;
  }

  std::string at(const std::string& target) const {
    return "http://127.0.0.1:" + std::to_string(server_->port()) + target;
  }
  Result<HttpResponse> get(const std::string& url) {
    return fetch(*client_, url, rules_, std::chrono::steady_clock::now() + kTestPatience, nullptr);
  }
  // Every refusal: the code, and a message that holds nothing of the network.
  void expect_refused(const std::string& url, Code code) {
    const auto answer = get(url);
    ASSERT_FALSE(answer) << url;
    EXPECT_EQ(answer.error().code, code) << url << ": " << answer.error().message;
    EXPECT_THAT(answer.error().message, Not(HasSubstr("127.0"))) << url;
    EXPECT_THAT(answer.error().message, Not(HasSubstr("::"))) << url;
  }

  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<HttpClient> client_ = must(HttpClient::create());
  FetchRules rules_;
  std::atomic<int> pictures_ = 0;
};

TEST_F(FetchTest, GetsWhatIsListed) {
  EXPECT_EQ(must(get(at("/picture?n=1"))).body, "picture 1");
  rules_.domains = {"LOCALHOST"};
  EXPECT_EQ(must(get("http://localhost:" + std::to_string(server_->port()) + "/picture")).body, "picture ");
}

TEST_F(FetchTest, AsksNoHostThatIsNotListed) {
  rules_.domains = {};
  expect_refused(at("/picture"), Code::kInvalidArgument);
  rules_.domains = {".0.0.1", "127.0.0.10", "7.0.0.1", "27.0.0.1"};
  expect_refused("http://localhost:" + std::to_string(server_->port()) + "/picture", Code::kInvalidArgument);
  rules_.domains = {".localhost"};  // only what is below it
  expect_refused("http://localhost:" + std::to_string(server_->port()) + "/picture", Code::kInvalidArgument);
  expect_refused("http://notlocalhost:" + std::to_string(server_->port()) + "/picture", Code::kInvalidArgument);
  EXPECT_EQ(pictures_, 0);
}

TEST_F(FetchTest, AsksNoPrivateAddressUnlessAllowed) {
  rules_.private_networks = false;
  rules_.domains = {"127.0.0.1", "localhost", "::1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::ffff:127.0.0.1"};
  const std::string port = std::to_string(server_->port());
  expect_refused(at("/picture"), Code::kInvalidArgument);
  for (const std::string host : {"localhost", "[::1]", "10.0.0.1", "169.254.169.254", "0.0.0.0", "[::ffff:127.0.0.1]"})
    expect_refused(fmt::format("http://{}:{}/picture", host, port), Code::kInvalidArgument);
  EXPECT_EQ(pictures_, 0);
}

TEST_F(FetchTest, OddSpellingsOfAddressesAreRefused) {
  rules_.domains = {"2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0x7f000001", "127.0.0.1"};
  const std::string port = std::to_string(server_->port());
  for (const std::string host :
       {"2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0x7f000001", "127.0.0.1.", "127。0。0。1"})
    expect_refused(fmt::format("http://{}:{}/picture", host, port), Code::kInvalidArgument);
  EXPECT_EQ(pictures_, 0);
}

TEST_F(FetchTest, RefusesOtherSchemesAndUsers) {
  for (const std::string url : {"file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "//127.0.0.1/", "",
                                "http://user@127.0.0.1/", "http://127.0.0.1@localhost/"})
    expect_refused(url, Code::kInvalidArgument);
}

TEST_F(FetchTest, FollowsRedirects) {
  for (const int status : {301, 302, 303, 307, 308})
    EXPECT_EQ(must(get(at("/" + std::to_string(status)))).body, "picture ") << status;
  EXPECT_EQ(must(get(at("/302?to=/picture%3Fn=2%23part"))).body, "picture 2");
  EXPECT_EQ(must(get(at("/302?to=" + at("/picture")))).body, "picture ");
  EXPECT_EQ(must(get(at("/302?to=//127.0.0.1:" + std::to_string(server_->port()) + "/picture"))).body, "picture ");
  EXPECT_EQ(must(get(at("/a/b/relative?to=picture"))).body, "deep");
  EXPECT_EQ(must(get(at("/a/b/relative?to=./picture"))).body, "deep");
  EXPECT_EQ(must(get(at("/a/b/relative?to=../../picture"))).body, "picture ");
  EXPECT_EQ(must(get(at("/a/b/relative?to=../../../../x/../picture"))).body, "picture ");
}

TEST_F(FetchTest, EveryRedirectPassesTheRulesAgain) {
  const std::string port = std::to_string(server_->port());
  expect_refused(at("/302?to=http://localhost:" + port + "/picture"), Code::kInvalidArgument);
  expect_refused(at("/302?to=file:///etc/passwd"), Code::kInvalidArgument);
  expect_refused(at("/302?to=http://2130706433:" + port + "/picture"), Code::kInvalidArgument);
  expect_refused(at("/302?to=http://u@127.0.0.1:" + port + "/picture"), Code::kInvalidArgument);
  expect_refused(at("/302?to=http:///"), Code::kInvalidArgument);
  expect_refused(at("/nowhere"), Code::kUnavailable);
  EXPECT_EQ(pictures_, 0);
}

TEST_F(FetchTest, RedirectsAreCounted) {
  expect_refused(at("/loop"), Code::kUnavailable);
  rules_.max_redirects = 0;
  expect_refused(at("/302"), Code::kUnavailable);
  rules_.max_redirects = 1;
  EXPECT_EQ(must(get(at("/302"))).body, "picture ");
}

TEST_F(FetchTest, WhatCannotBeHadIsUnavailable) {
  expect_refused(at("/missing"), Code::kUnavailable);
  expect_refused(at("/empty"), Code::kUnavailable);
  expect_refused(at("/large"), Code::kResourceExhausted);
  rules_.domains = {"no-such-host.invalid", "127.0.0.1"};
  expect_refused("http://no-such-host.invalid/", Code::kUnavailable);
  expect_refused("http://127.0.0.1:1/", Code::kUnavailable);
}

TEST_F(FetchTest, DeadlinesAndCancellingHold) {
  Flag end;
  const ScriptServer silent([&](RawClient&, int) { end.wait(); });
  const std::string url = "http://127.0.0.1:" + std::to_string(silent.port()) + "/";
  const auto late =
      fetch(*client_, url, rules_, std::chrono::steady_clock::now() + std::chrono::milliseconds(50), nullptr);
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  const CancelFlag cancelled = true;
  EXPECT_EQ(fetch(*client_, url, rules_, kNoDeadline, &cancelled).error().code, Code::kCancelled);
  end.raise();
}

}  // namespace
}  // namespace chiasm
