#include <array>
#include <cstring>

#include <arpa/inet.h>

#include "http/client.h"
#include "http/text.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxUrl = 8192;

tl::unexpected<Error> refused(std::string_view why) {
  return fail(Code::kInvalidArgument, "not a usable URL: {}", why);
}

// "[::1]" without its brackets, in the usual spelling.
Result<std::string> parse_bracketed(std::string_view text) {
  const std::string host(text.substr(1, text.size() - 2));
  std::array<std::uint8_t, 16> address{};
  std::array<char, INET6_ADDRSTRLEN> spelt{};
  if (::inet_pton(AF_INET6, host.c_str(), address.data()) != 1 ||
      ::inet_ntop(AF_INET6, address.data(), spelt.data(), spelt.size()) == nullptr)
    return refused("what stands in brackets is no IPv6 address");
  return std::string(spelt.data());
}

// Names whose last label is a number are addresses to some ("127.1", "0x7f000001", "2130706433"): of these only the
// spelling with four decimal parts is taken, which means one thing to everyone.
bool ends_in_number(std::string_view host) {
  const std::string_view label = host.substr(host.rfind('.') + 1);
  bool digits = true;
  for (const char c : label) digits = digits && is_digit(c);
  return digits || (label.size() >= 2 && label[0] == '0' && label[1] == 'x');
}

Result<std::string> parse_name(std::string_view text) {
  if (text.empty()) return refused("it has no host");
  if (text.size() > 253) return refused("its host is longer than 253 characters");
  const std::string host = lower(text);
  std::size_t label = 0;
  for (std::size_t i = 0; i <= host.size(); ++i) {
    const char c = i < host.size() ? host[i] : '.';
    if (c == '.') {
      if (label == 0 || label > 63) return refused("a label of its host has not 1 to 63 characters");
      label = 0;
    } else if (is_letter(c) || is_digit(c) || c == '-' || c == '_') {
      ++label;
    } else {
      return refused("its host holds a character other than letters, digits, '-', '_' and '.'");
    }
  }
  in_addr ignored{};
  if (ends_in_number(host) && ::inet_pton(AF_INET, host.c_str(), &ignored) != 1)
    return refused("its host looks like an IPv4 address but is not one of four decimal parts");
  return host;
}

Status check_target(std::string_view target) {
  for (std::size_t i = 0; i < target.size(); ++i) {
    const char c = target[i];
    if (c <= ' ' || c >= 0x7f || std::strchr("\"<>\\^`{}", c) != nullptr)
      return refused("its path or query holds a character that must be percent-encoded");
    if (c == '%' && (i + 2 >= target.size() || hex_digit(target[i + 1]) < 0 || hex_digit(target[i + 2]) < 0))
      return refused("its path or query holds '%' without two hexadecimal digits");
  }
  return {};
}

}  // namespace

Result<Url> Url::parse(std::string_view text) {
  if (text.size() > kMaxUrl) return refused("it is longer than 8 KiB");
  Url url;
  const std::size_t colon = text.find("://");
  url.scheme = lower(text.substr(0, std::min(colon, text.size())));
  if (colon == std::string_view::npos || (url.scheme != "http" && url.scheme != "https"))
    return refused("it must begin with http:// or https://");
  text.remove_prefix(colon + 3);

  const std::size_t authority_end = std::min(text.find_first_of("/?#"), text.size());
  std::string_view authority = text.substr(0, authority_end);
  std::string_view rest = text.substr(authority_end);
  if (authority.find('@') != std::string_view::npos) return refused("it names a user");

  const std::size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  if (bracket == std::string_view::npos) return refused("a bracket of its host is not closed");
  const std::size_t host_end = std::min(authority.find(':', bracket), authority.size());
  const std::string_view host = authority.substr(0, host_end);
  if (bracket > 0 && bracket + 1 != host.size()) return refused("something follows the bracket of its host");
  ASSIGN_OR_RETURN(url.host, bracket > 0 ? parse_bracketed(host) : parse_name(host));

  url.port = url.scheme == "https" ? 443 : 80;
  if (host_end < authority.size()) {
    const std::string_view port = authority.substr(host_end + 1);
    const auto number = port.size() <= 5 ? decimal(port) : std::nullopt;
    if (!number || *number == 0 || *number > 65535) return refused("its port is not a number from 1 to 65535");
    url.port = static_cast<std::uint16_t>(*number);
  }

  rest = rest.substr(0, rest.find('#'));  // for the one who shows the page, not for the server
  RETURN_IF_ERROR(check_target(rest));
  url.target = rest.starts_with('/') ? std::string(rest) : "/" + std::string(rest);
  return url;
}

std::string Url::origin() const {
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", scheme, v6 ? "[" : "", host, v6 ? "]" : "", port);
}

}  // namespace chiasm
