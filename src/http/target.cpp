#include "http/target.h"

#include <algorithm>

#include "http/text.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxQueryFields = 256;

Status decode(std::string_view text, bool plus_is_space, std::string& out) {
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0)
        return fail(Code::kInvalidArgument, "the target of the request holds '%' without two hexadecimal digits");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    out += c;
  }
  return {};
}

Status parse_path(std::string_view text, Target& target) {
  while (!text.empty()) {
    text.remove_prefix(1);  // the slash
    const std::size_t end = std::min(text.find('/'), text.size());
    std::string segment;
    RETURN_IF_ERROR(decode(text.substr(0, end), false, segment));
    text.remove_prefix(end);
    // A slash that is encoded belongs to a name ("Qwen/Qwen2-VL-2B-Instruct"), not to the path.
    const std::string framed = "/" + segment + "/";
    if (framed.find("/./") != std::string::npos || framed.find("/../") != std::string::npos)
      return fail(Code::kInvalidArgument, "the path of the request has a segment '{}'", segment);
    for (const char c : segment)
      if (c == '\t' || is_control(c))
        return fail(Code::kInvalidArgument, "the path of the request encodes a control character");
    target.path.append("/").append(segment);
    target.segments.push_back(std::move(segment));
  }
  return {};
}

Status parse_query(std::string_view text, Target& target) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const std::string_view field = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (field.empty()) continue;
    if (target.query.size() == kMaxQueryFields)
      return fail(Code::kInvalidArgument, "the query of the request has more than {} fields", kMaxQueryFields);
    const std::size_t equals = std::min(field.find('='), field.size());
    std::string name, value;
    RETURN_IF_ERROR(decode(field.substr(0, equals), true, name));
    RETURN_IF_ERROR(decode(field.substr(std::min(equals + 1, field.size())), true, value));
    if (name.find('\0') != std::string::npos || value.find('\0') != std::string::npos)
      return fail(Code::kInvalidArgument, "the query of the request holds a zero byte");
    target.query.emplace_back(std::move(name), std::move(value));
  }
  return {};
}

}  // namespace

Result<Target> parse_target(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (same_word(text.substr(0, scheme.size()), scheme)) {
      text.remove_prefix(std::min(text.find_first_of("/?", scheme.size()), text.size()));
      if (text.empty() || text.front() == '?') {  // "http://host?x=1": the path is "/"
        Target target{"/", {""}, {}};
        RETURN_IF_ERROR(parse_query(text.substr(std::min<std::size_t>(1, text.size())), target));
        return target;
      }
      break;
    }
  if (text.empty() || text.front() != '/')
    return fail(Code::kInvalidArgument, "the target of the request must begin with '/'");
  const std::size_t end = std::min(text.find('?'), text.size());
  if (text.find('#') != std::string_view::npos)
    return fail(Code::kInvalidArgument, "the target of the request holds '#'");
  Target target;
  RETURN_IF_ERROR(parse_path(text.substr(0, end), target));
  RETURN_IF_ERROR(parse_query(text.substr(std::min(end + 1, text.size())), target));
  return target;
}

}  // namespace chiasm
