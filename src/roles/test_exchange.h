// An Exchange without a server: what a handler is given, and what it answered. For tests of routes.
//
// Thread contract: one handler at a time; leave() may be called by another thread meanwhile.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "http/server.h"

namespace chiasm {

class TestExchange : public Exchange {
 public:
  explicit TestExchange(HttpRequest request) : request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::exchange(request_.body, {}); }

  void respond(HttpResponse response) override {
    EXPECT_EQ(answers_++, 0) << "a second answer";
    response_ = std::move(response);
  }
  void start(int status, Headers headers) override { respond({status, std::move(headers), {}}); }
  bool write(std::string_view bytes) override {
    response_.body += bytes;
    return !gone();
  }
  void finish() override {}

  bool gone() const override {
    const std::lock_guard lock(mutex_);
    return gone_;
  }
  void on_gone(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        callbacks_.push_back(std::move(callback));
        return;
      }
    }
    callback();
  }
  // The client closes its connection.
  void leave() {
    std::vector<std::function<void()>> callbacks;
    {
      const std::lock_guard lock(mutex_);
      gone_ = true;
      callbacks.swap(callbacks_);
    }
    for (const auto& callback : callbacks) callback();
  }

  int answers() const { return answers_; }
  const HttpResponse& response() const { return response_; }

 private:
  HttpRequest request_;
  HttpResponse response_;
  int answers_ = 0;
  mutable std::mutex mutex_;
  bool gone_ = false;
  std::vector<std::function<void()>> callbacks_;
};

// The route of `routes` for a method and a path, its captures put into the request; none is a failure of the test.
inline HttpResponse answer_of(const std::vector<Route>& routes, TestExchange& exchange, std::string_view pattern) {
  const std::string& method = exchange.request().method;
  for (const Route& route : routes) {
    if (route.pattern != pattern || (route.method != method && !(route.method == "GET" && method == "HEAD"))) continue;
    route.handler(exchange);
    EXPECT_EQ(exchange.answers(), 1) << "no answer";
    return exchange.response();
  }
  ADD_FAILURE() << "no route for " << method << " " << pattern;
  return {};
}

}  // namespace chiasm
