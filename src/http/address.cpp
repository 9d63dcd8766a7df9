// What kind of address it is, by the registries of IANA: "IPv4 Special-Purpose Address Registry" and its twin for IPv6.
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>

#include <arpa/inet.h>

#include "http/client.h"

namespace chiasm {
namespace {

using V6 = std::array<std::uint8_t, 16>;

struct Block {
  std::uint32_t first;
  int bits;
};

// Every IPv4 block that is not of the public internet.
constexpr Block kSpecial[] = {
    {0x00000000, 8},   // this network
    {0x0a000000, 8},   // private
    {0x64400000, 10},  // shared
    {0x7f000000, 8},   // loopback
    {0xa9fe0000, 16},  // link-local
    {0xac100000, 12},  // private
    {0xc0000000, 24},  // protocol assignments
    {0xc0000200, 24},  // documentation
    {0xc0586300, 24},  // 6to4 relays
    {0xc0a80000, 16},  // private
    {0xc6120000, 15},  // benchmarks
    {0xc6336400, 24},  // documentation
    {0xcb007100, 24},  // documentation
    {0xe0000000, 4},   // multicast
    {0xf0000000, 4},   // reserved, broadcast
};

std::optional<std::uint32_t> parse_v4(const std::string& text) {
  in_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) != 1) return std::nullopt;
  return ntohl(address.s_addr);
}

std::optional<V6> parse_v6(const std::string& text) {
  V6 address{};
  if (::inet_pton(AF_INET6, text.c_str(), address.data()) != 1) return std::nullopt;
  return address;
}

std::uint32_t word(const V6& address, std::size_t at) {
  return static_cast<std::uint32_t>(address[at]) << 24 | static_cast<std::uint32_t>(address[at + 1]) << 16 |
         static_cast<std::uint32_t>(address[at + 2]) << 8 | address[at + 3];
}

bool is_public(std::uint32_t v4) {
  for (const Block& block : kSpecial)
    if ((v4 ^ block.first) >> (32 - block.bits) == 0) return false;
  return true;
}

bool is_mapped(const V6& address) {
  return word(address, 0) == 0 && word(address, 4) == 0 && word(address, 8) == 0x0000ffff;
}

bool is_public(const V6& address) {
  const std::uint32_t first = word(address, 0);
  if (is_mapped(address)) return is_public(word(address, 12));
  if (first == 0x0064ff9b && word(address, 4) == 0 && word(address, 8) == 0)
    return is_public(word(address, 12));                                              // NAT64
  if (first >> 16 == 0x2002) return is_public(first << 16 | word(address, 4) >> 16);  // 6to4
  if (first >> 29 != 1) return false;                                                 // only 2000::/3 is given out
  if (first >> 9 == 0x20010000 >> 9) return false;  // protocol assignments, Teredo among them
  if (first == 0x20010db8) return false;            // documentation
  if (first >> 12 == 0x3fff0) return false;         // documentation
  return true;
}

}  // namespace

bool is_public_address(std::string_view address) {
  const std::string text(address);
  if (text.size() != std::strlen(text.c_str())) return false;
  if (const auto v4 = parse_v4(text)) return is_public(*v4);
  if (const auto v6 = parse_v6(text)) return is_public(*v6);
  return false;
}

bool is_loopback_address(std::string_view address) {
  const std::string text(address);
  if (text.size() != std::strlen(text.c_str())) return false;
  if (const auto v4 = parse_v4(text)) return *v4 >> 24 == 127;
  const auto v6 = parse_v6(text);
  if (!v6) return false;
  if (is_mapped(*v6)) return word(*v6, 12) >> 24 == 127;
  return word(*v6, 0) == 0 && word(*v6, 4) == 0 && word(*v6, 8) == 0 && word(*v6, 12) == 1;
}

}  // namespace chiasm
