// Which server is asked for a feature: highest-random-weight hashing (Thaler and Ravishankar, 1998).
//
// Every language server that lists the same names comes to the same order, and a name that joins or leaves moves only
// its own share of the features. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "features/feature.h"

namespace chiasm {

// The weight of this server for this feature, uniform in 64 bits.
std::uint64_t rendezvous_weight(const FeatureId& id, std::string_view server);

// Indices into `servers`, the first choice first, then where to go when it fails. Equal weights: by name.
std::vector<std::size_t> rendezvous_order(const FeatureId& id, std::span<const std::string> servers);

}  // namespace chiasm
