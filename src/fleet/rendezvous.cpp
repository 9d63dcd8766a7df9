#include "fleet/rendezvous.h"

#include <algorithm>
#include <numeric>

#include "base/digest.h"

namespace chiasm {

std::uint64_t rendezvous_weight(const FeatureId& id, std::string_view server) {
  // The id has one length, so what follows it needs no frame.
  std::string text(reinterpret_cast<const char*>(id.digest.bytes.data()), id.digest.bytes.size());
  text += server;
  return checksum_of(std::as_bytes(std::span(text)));
}

std::vector<std::size_t> rendezvous_order(const FeatureId& id, std::span<const std::string> servers) {
  std::vector<std::uint64_t> weights;
  weights.reserve(servers.size());
  for (const std::string& server : servers) weights.push_back(rendezvous_weight(id, server));
  std::vector<std::size_t> order(servers.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : servers[a] < servers[b];
  });
  return order;
}

}  // namespace chiasm
