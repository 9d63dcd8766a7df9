#include "api/private_text.h"

#include <algorithm>
#include <cstddef>

namespace chiasm {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// What ends a word: a path, an address and a host with its port hold none of these.
bool ends_word(char c) {
  return static_cast<unsigned char>(c) <= ' ' || std::string_view("\"'`,;()<>{}|=").find(c) != std::string_view::npos;
}

bool is_path(std::string_view word) {
  if (word.find('\\') != std::string_view::npos) return true;
  const std::size_t slash = word.find('/');
  if (slash == std::string_view::npos) return false;
  if (word == "/") return false;
  // One slash between plain words is a media type or a fraction; everything else is taken for a path.
  const auto plain = [](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '+' || c == '*'; };
  std::string_view before = word.substr(0, slash), after = word.substr(slash + 1);
  while (!after.empty() && (after.back() == '.' || after.back() == ':')) after.remove_suffix(1);
  return before.empty() || after.empty() || !std::all_of(before.begin(), before.end(), plain) ||
         !std::all_of(after.begin(), after.end(), plain);
}

// Four numbers with dots between, anywhere in the word.
bool holds_ipv4(std::string_view word) {
  for (std::size_t begin = 0; begin < word.size(); ++begin) {
    if (!is_digit(word[begin]) || (begin > 0 && is_digit(word[begin - 1]))) continue;
    std::size_t at = begin;
    int numbers = 0;
    while (at < word.size() && is_digit(word[at])) {
      while (at < word.size() && is_digit(word[at])) ++at;
      ++numbers;
      if (at + 1 < word.size() && word[at] == '.' && is_digit(word[at + 1])) ++at;
    }
    if (numbers >= 4) return true;
  }
  return false;
}

// Hexadecimal groups with at least two colons, "fe80::1%eth0" and "[::1]:80" too.
bool holds_ipv6(std::string_view word) {
  std::size_t colons = 0, groups = 0;
  for (std::size_t i = 0; i < word.size(); ++i) {
    if (word[i] == ':') {
      ++colons;
    } else if (is_hex(word[i]) || word[i] == '.') {
      groups += i == 0 || word[i - 1] == ':' || word[i - 1] == '[' ? 1 : 0;
    } else if (word[i] == '[' || word[i] == ']' || word[i] == '%') {
      continue;
    } else {
      if (colons >= 2 && groups > 0) return true;
      colons = groups = 0;
    }
  }
  return colons >= 2 && (groups > 0 || colons == 2);
}

// ":" and one to five digits, which are then over: "host-a:9001", ":8080", "[::1]:80".
bool holds_port(std::string_view word) {
  for (std::size_t colon = word.find(':'); colon != std::string_view::npos; colon = word.find(':', colon + 1)) {
    std::size_t end = colon + 1;
    while (end < word.size() && is_digit(word[end])) ++end;
    const std::size_t digits = end - colon - 1;
    if (digits >= 1 && digits <= 5 && (end == word.size() || !is_letter(word[end]))) return true;
  }
  return false;
}

bool is_word_port(std::string_view word) {
  return word.size() >= 4 && word.size() <= 6 && (word[0] == 'p' || word[0] == 'P') && word.substr(1, 3) == "ort" &&
         (word.size() == 4 || word.substr(4) == "s" || word.substr(4) == ":");
}

}  // namespace

bool holds_private_text(std::string_view text) {
  bool after_port = false;
  for (std::size_t begin = 0; begin < text.size();) {
    if (ends_word(text[begin])) {
      ++begin;
      continue;
    }
    std::size_t end = begin;
    while (end < text.size() && !ends_word(text[end])) ++end;
    const std::string_view word = text.substr(begin, end - begin);
    if (is_path(word) || holds_ipv4(word) || holds_ipv6(word) || holds_port(word)) return true;
    if (after_port && is_digit(word[0])) return true;
    after_port = is_word_port(word);
    begin = end;
  }
  return false;
}

}  // namespace chiasm
