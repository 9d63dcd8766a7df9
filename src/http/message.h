// What travels over HTTP, apart from any library: headers, requests, responses.
//
// Thread contract: plain values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/deadline.h"

namespace chiasm {

// In the order they came; names compare without case.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> all) : all_(all) {}

  void add(std::string name, std::string value) { all_.emplace_back(std::move(name), std::move(value)); }
  void set(std::string_view name, std::string value);                 // replaces all of that name
  std::optional<std::string_view> find(std::string_view name) const;  // the first
  const std::vector<std::pair<std::string, std::string>>& all() const { return all_; }

 private:
  std::vector<std::pair<std::string, std::string>> all_;
};

struct HttpRequest {
  std::string method;                                         // "GET"
  std::string path;                                           // percent-decoded, without the query
  std::vector<std::pair<std::string, std::string>> query;     // decoded
  std::vector<std::pair<std::string, std::string>> captures;  // of the route's pattern: {"id", "…"}
  Headers headers;
  std::string body;
  std::string peer;         // the client's address, for logs
  std::string id;           // X-Request-Id, the client's or made here; answers carry it
  std::string client_name;  // subject of a verified TLS client certificate, else empty
  Deadline deadline = kNoDeadline;

  std::string_view capture(std::string_view name) const;  // empty when the pattern has none
  std::optional<std::string_view> query_value(std::string_view name) const;
};

// Whether Content-Type names this type ("application/json"), whatever its parameters and case.
bool has_media_type(const HttpRequest& request, std::string_view type);

// Whether If-None-Match names this tag (quotes and all): the weak comparison of RFC 9110, section 13.1.2.
bool has_current(const HttpRequest& request, std::string_view tag);

struct HttpResponse {
  int status = 200;
  Headers headers;
  std::string body;

  static HttpResponse json(int status, std::string body);
  static HttpResponse text(int status, std::string body);
};

}  // namespace chiasm
