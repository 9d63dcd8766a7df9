// What a fleet of vision servers is told at its start, and what it tells about its servers.
//
// Thread contract: plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "features/feature_file.h"
#include "fleet/health.h"
#include "http/client.h"
#include "tensor/dtype.h"

namespace chiasm {

struct FleetOptions {
  std::vector<Url> servers;  // 1 to 64 origins, no two alike; every language server spells them the same way
  std::string secret;        // sent as "Authorization: Bearer …" when not empty

  // What the language side's checkpoint names; a server that has another is kept out. Not given: any.
  std::optional<Digest> vision_digest;
  std::vector<Digest> accepted_digests;  // further vision digests that an operator lists
  std::optional<Digest> preprocess_digest;
  std::int64_t width = 0;      // of a feature row, the language model's hidden_size; 0: as the server says
  std::int64_t merge = 0;      // spatial_merge_size; 0: as the server says
  std::optional<DType> dtype;  // as in FeatureExpectations

  std::uint64_t max_feature = kMaxFeatureFile;         // bytes of an answered feature
  std::chrono::milliseconds request_timeout{120'000};  // the longest that one server is waited for
  std::chrono::milliseconds probe_timeout{2'000};      // of a probe, and of GET /v1/info
  std::chrono::milliseconds info_interval{10'000};     // after which a probe reads the info again
  HealthOptions health;

  // For operators: names servers and says what they answered. Called from any thread, no lock held; may be null.
  std::function<void(std::string_view)> log;
  std::function<Deadline()> clock;  // null: the steady clock. Deadlines are points of it
  std::uint64_t seed = 0;           // of the jitter; 0: the system's
};

// One server as it stands: for logs and metrics, not for clients.
struct ServerState {
  std::string origin;
  ServerCondition condition = ServerCondition::kHealthy;
  int consecutive_failures = 0;
  std::uint64_t requests = 0;  // about features; neither probes nor info
  std::uint64_t failures = 0;  // of these
  std::uint64_t probes = 0, failed_probes = 0;
  std::optional<Digest> vision_digest;  // as it last said
  std::string last_error;               // "" when there was none
};

}  // namespace chiasm
