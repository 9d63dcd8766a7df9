#include "http/router.h"

#include <algorithm>

namespace chiasm {
namespace {

bool is_capture(const std::string& segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

bool fits(const std::vector<std::string>& pattern, const std::vector<std::string>& segments) {
  return std::equal(pattern.begin(), pattern.end(), segments.begin(), segments.end(),
                    [](const std::string& expected, const std::string& given) {
                      return is_capture(expected) ? !given.empty() : expected == given;
                    });
}

void add_method(std::string& allow, std::string_view method) {
  // Whole words: no method's name is part of another's.
  if (allow.find(method) != std::string::npos) return;
  if (!allow.empty()) allow += ", ";
  allow += method;
}

}  // namespace

Router::Router(std::vector<Route> routes) {
  for (Route& route : routes) {
    Entry entry;
    std::string_view rest = route.pattern;
    while (!rest.empty()) {
      rest.remove_prefix(1);
      const std::size_t end = std::min(rest.find('/'), rest.size());
      entry.segments.emplace_back(rest.substr(0, end));
      entry.rank += is_capture(entry.segments.back()) ? '1' : '0';
      rest.remove_prefix(end);
    }
    entry.route = std::move(route);
    entries_.push_back(std::move(entry));
  }
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.rank < b.rank; });
}

Router::Match Router::match(std::string_view method, const std::vector<std::string>& segments) const {
  const Entry* found = nullptr;
  const Entry* for_head = nullptr;
  Match match;
  for (const Entry& entry : entries_) {
    if (!fits(entry.segments, segments)) continue;
    add_method(match.allow, entry.route.method);
    if (entry.route.method == "GET") add_method(match.allow, "HEAD");
    if (found == nullptr && entry.route.method == method) found = &entry;
    if (for_head == nullptr && method == "HEAD" && entry.route.method == "GET") for_head = &entry;
  }
  if (found == nullptr) found = for_head;
  if (found == nullptr) return match;
  match.route = &found->route;
  for (std::size_t i = 0; i < segments.size(); ++i)
    if (found->rank[i] == '1')
      match.captures.emplace_back(found->segments[i].substr(1, found->segments[i].size() - 2), segments[i]);
  return match;
}

}  // namespace chiasm
