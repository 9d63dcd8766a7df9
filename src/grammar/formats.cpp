#include "grammar/formats.h"

#include <fmt/core.h>

namespace chiasm {

namespace {

// RFC 3339, 5.6, with the days that a month has. The year 0000 is none to many readers.
constexpr std::string_view kDate =
    R"((?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})-)"
    R"((?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|)"
    R"((?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29))";
constexpr std::string_view kTime =
    R"((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))";
// RFC 3339, appendix A.
constexpr std::string_view kDuration =
    R"(P(?:[0-9]{1,6}W|(?:[0-9]{1,6}Y(?:[0-9]{1,6}M(?:[0-9]{1,6}D)?)?|[0-9]{1,6}M(?:[0-9]{1,6}D)?|[0-9]{1,6}D)(?:T{0})?|T{0}))";
constexpr std::string_view kDurationTime =
    R"((?:[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?|[0-9]{1,6}M(?:[0-9]{1,6}S)?|[0-9]{1,6}S))";
constexpr std::string_view kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

// RFC 4291, 2.2, forms 1 and 2: eight groups, or fewer with one "::".
std::string ipv6() {
  const std::string group = "[0-9a-fA-F]{1,4}";
  std::string out = fmt::format("(?:{0}:){{7}}{0}|::|(?:{0}:){{1,7}}:|:(?::{0}){{1,7}}", group);
  for (int before = 1; before <= 6; ++before)
    out += fmt::format("|(?:{0}:){{{1}}}(?::{0}){{1,{2}}}", group, before, 7 - before);
  return out;
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

std::string body(std::string_view format) {
  if (format == "date") return std::string(kDate);
  if (format == "time") return std::string(kTime);
  if (format == "date-time") return fmt::format("(?:{})T{}", kDate, kTime);
  if (format == "duration") return replace_all(std::string(kDuration), "{0}", kDurationTime);
  if (format == "uuid") return "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}";
  // RFC 5321's dot-string of the characters that everyone takes, at a domain name.
  if (format == "email")
    return fmt::format(R"([A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*@(?:{}\.)+[A-Za-z]{{2,63}})", kLabel);
  if (format == "hostname") return fmt::format(R"({0}(?:\.{0})*)", kLabel);
  if (format == "ipv4") return fmt::format(R"((?:{0}\.){{3}}{0})", kByte);
  if (format == "ipv6") return ipv6();
  return {};
}

}  // namespace

std::optional<std::string> format_pattern(std::string_view format) {
  const std::string pattern = body(format);
  if (pattern.empty()) return std::nullopt;
  return "^(?:" + pattern + ")$";
}

}  // namespace chiasm
