// Which route a path belongs to.
//
// Thread contract: immutable after construction.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/server.h"

namespace chiasm {

class Router {
 public:
  explicit Router(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;  // null: no such path, or no such method when `allow` names others
    std::vector<std::pair<std::string, std::string>> captures;
    std::string allow;  // "GET, HEAD"
  };
  // Of several patterns that fit, the one whose literal segments come first.
  Match match(std::string_view method, const std::vector<std::string>& segments) const;

 private:
  struct Entry {
    Route route;
    std::vector<std::string> segments;
    std::string rank;  // a character a segment: '0' literal, '1' capture
  };
  std::vector<Entry> entries_;  // by rank
};

}  // namespace chiasm
