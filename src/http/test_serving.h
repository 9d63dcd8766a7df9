// The fixture of the server's tests: a server of which each test says the options and routes.
//
// Thread contract: belongs to the test's thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "http/server.h"
#include "http/test_server.h"

namespace chiasm {

inline std::string get(const std::string& target, const std::string& more = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: x\r\n" + more + "\r\n";
}

inline std::string post(const std::string& target, const std::string& body, const std::string& more = "") {
  return "POST " + target + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more +
         "\r\n" + body;
}

// Waits for what another thread is about to make true.
template <class Condition>
bool soon(Condition condition) {
  const Deadline end = std::chrono::steady_clock::now() + kTestPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class ServerTest : public testing::Test {
 protected:
  void start() { server_ = must(HttpServer::start(options_, routes_)); }
  void route(std::string method, std::string pattern, Handler handler, std::uint64_t max_body = 0,
             Route::Lane lane = Route::Lane::kWork) {
    routes_.push_back({std::move(method), std::move(pattern), std::move(handler), lane, false, max_body});
  }
  void route_echo(std::uint64_t max_body = 1 << 20) {
    route(
        "POST", "/echo", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, exchange.request().body)); },
        max_body);
  }
  void route_hello() {
    route("GET", "/hello", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "hello")); });
  }
  // Holds its permit until `release_` is raised.
  void route_slow() {
    route("GET", "/slow", [this](Exchange& exchange) {
      entered_.raise();
      EXPECT_TRUE(release_.wait());
      exchange.respond(HttpResponse::text(200, "slow"));
    });
  }
  std::uint16_t port() const { return server_->port(); }

  ServerOptions options_;
  std::vector<Route> routes_;
  Flag entered_, release_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace chiasm
