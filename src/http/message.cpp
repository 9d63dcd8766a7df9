#include "http/message.h"

#include <algorithm>

#include "http/text.h"

namespace chiasm {
void Headers::set(std::string_view name, std::string value) {
  std::erase_if(all_, [&](const auto& header) { return same_word(header.first, name); });
  all_.emplace_back(std::string(name), std::move(value));
}

std::optional<std::string_view> Headers::find(std::string_view name) const {
  for (const auto& [key, value] : all_)
    if (same_word(key, name)) return value;
  return std::nullopt;
}

std::string_view HttpRequest::capture(std::string_view name) const {
  for (const auto& [key, value] : captures)
    if (key == name) return value;
  return {};
}

std::optional<std::string_view> HttpRequest::query_value(std::string_view name) const {
  for (const auto& [key, value] : query)
    if (key == name) return value;
  return std::nullopt;
}

HttpResponse HttpResponse::json(int status, std::string body) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

HttpResponse HttpResponse::text(int status, std::string body) {
  return {status, {{"Content-Type", "text/plain; charset=utf-8"}}, std::move(body)};
}

bool has_media_type(const HttpRequest& request, std::string_view type) {
  const std::string_view given = request.headers.find("Content-Type").value_or("");
  return same_word(trimmed(given.substr(0, given.find(';'))), type);
}

bool has_current(const HttpRequest& request, std::string_view tag) {
  std::string_view left = request.headers.find("If-None-Match").value_or("");
  while (!left.empty()) {
    const std::size_t comma = std::min(left.find(','), left.size());
    std::string_view item = trimmed(left.substr(0, comma));
    if (item.starts_with("W/")) item.remove_prefix(2);
    if (item == "*" || item == tag) return true;
    left.remove_prefix(std::min(comma + 1, left.size()));
  }
  return false;
}

}  // namespace chiasm
