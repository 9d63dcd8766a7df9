#include "language/stop_strings.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace chiasm {
namespace {

constexpr std::size_t kMostStrings = 64, kMostBytes = 4096;

std::size_t follow(const std::string& text, const std::vector<std::size_t>& fallback, std::size_t length, char next) {
  while (length > 0 && text[length] != next) length = fallback[length - 1];
  return text[length] == next ? length + 1 : 0;
}

}  // namespace

Status check_stop_strings(const std::vector<std::string>& stop) {
  if (stop.size() > kMostStrings)
    return fail(Code::kInvalidArgument, "stop: expected at most {} strings, got {}", kMostStrings, stop.size());
  for (const std::string& one : stop) {
    if (one.empty() || one.size() > kMostBytes)
      return fail(Code::kInvalidArgument, "stop: expected strings of 1 to {} bytes, got one of {}", kMostBytes,
                  one.size());
    if (!is_utf8(one)) return fail(Code::kInvalidArgument, "stop: expected UTF-8, got other bytes");
  }
  return {};
}

StopStrings::StopStrings(std::vector<std::string> stop) {
  for (std::string& text : stop) {
    Pattern pattern{std::move(text), {0}, 0};
    for (std::size_t i = 1; i < pattern.text.size(); ++i)
      pattern.fallback.push_back(follow(pattern.text, pattern.fallback, pattern.fallback.back(), pattern.text[i]));
    patterns_.push_back(std::move(pattern));
  }
}

std::string StopStrings::push(std::string_view piece) {
  if (matched_) return {};
  if (patterns_.empty()) return std::string(piece);
  for (std::size_t i = 0; i < piece.size(); ++i) {
    const Pattern* found = nullptr;
    for (Pattern& pattern : patterns_) {
      pattern.length = follow(pattern.text, pattern.fallback, pattern.length, piece[i]);
      if (pattern.length < pattern.text.size()) continue;
      if (found == nullptr || pattern.text.size() > found->text.size()) found = &pattern;
      pattern.length = pattern.fallback[pattern.length - 1];
    }
    if (found == nullptr) continue;
    matched_ = found->text;
    std::string out = std::exchange(held_, {}) + std::string(piece.substr(0, i + 1));
    out.resize(out.size() - found->text.size());
    return out;
  }
  held_ += piece;
  std::size_t beginning = 0;
  for (const Pattern& pattern : patterns_) beginning = std::max(beginning, pattern.length);
  std::string out = held_.substr(0, held_.size() - beginning);
  held_.erase(0, out.size());
  return out;
}

std::string StopStrings::finish() {
  for (Pattern& pattern : patterns_) pattern.length = 0;
  return std::exchange(held_, {});
}

}  // namespace chiasm
