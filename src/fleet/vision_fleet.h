// The language side's way to its vision servers: which one is asked for a feature, what is checked before the answer is
// used, who is asked next when one fails.
//
// The first choice follows from the feature's id (rendezvous.h), so that each server's caches hold their own share.
// Errors may be shown to clients: they hold no addresses; those go to FleetOptions::log. Nothing is sent twice at once.
// Thread contract: every method but start() and stop() may be called from any thread; these two from one thread. No
// call may run when the fleet is destroyed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "features/feature.h"
#include "fleet/feature_calls.h"
#include "fleet/fleet_options.h"
#include "fleet/roster.h"
#include "fleet/vision_info.h"
#include "http/client.h"

namespace chiasm {

struct RemoteFeature {
  Feature feature;
  std::string source;    // where the vision server had it: "encoded", "memory", "disk"; "unknown" when it does not say
  double vision_ms = 0;  // from the call to the checked answer, servers that failed included
  std::string server;    // its origin, for logs
};

class VisionFleet {
 public:
  // kInvalidArgument: no servers, too many, two alike, one with a path, a secret that no header can carry.
  static Result<std::unique_ptr<VisionFleet>> create(FleetOptions options, std::unique_ptr<HttpClient> client);
  ~VisionFleet();  // stops

  // The features of a folder that vision servers of this machine may use too: its name (DiskTier::folder_name), and how
  // to read one. A server that writes into the folder of this name says so instead of sending the rows; where the read
  // fails, they are asked for after all. Before start().
  void share_folder(std::string name, std::function<Result<Feature>(const FeatureKey&)> read);

  // One probing thread a server. Without them ejected servers come back only by probe_due().
  Status start();
  void stop();  // ends running probes

  // What keys are to be made with. Remembered: a server is asked only where none has ever answered, and what servers
  // said stays valid when they are down. kUnavailable: none answers. kFailedPrecondition, naming both digests: each
  // serves another model.
  Result<VisionInfo> info(Deadline deadline, const CancelFlag* cancel);

  // One picture's bytes, or the frames of one video. `key` must be made with these pixel bounds and of an info that
  // info() gave. kInvalidArgument: the picture or the tenant is refused, in the vision server's words; no other server
  // is asked. kFailedPrecondition: every server is of another model than the key, both named. kUnavailable: all are
  // down, busy, or gave bad features. kDeadlineExceeded, kCancelled.
  Result<RemoteFeature> encode(const FeatureKey& key, FileBytes files, std::optional<std::int64_t> min_pixels,
                               std::optional<std::int64_t> max_pixels, std::string_view tenant, Deadline deadline,
                               const CancelFlag* cancel);

  // What some server keeps under this id. kNotFound: every server says that it has none; kUnavailable where one that
  // might have it cannot be asked.
  Result<RemoteFeature> get(const FeatureId& id, std::string_view tenant, Deadline deadline, const CancelFlag* cancel);

  // From all servers that are not ejected. kNotFound: none had it. kUnavailable: one could not do it.
  Status remove(const FeatureId& id, std::string_view tenant, Deadline deadline, const CancelFlag* cancel);

  std::vector<ServerState> servers() const { return roster_.states(); }

  // Sends the probes that are due, and says when the next is: what the threads of start() do, for those who have a
  // thread already.
  Deadline probe_due();

 private:
  struct Question;
  struct Tally;
  using Info = std::shared_ptr<const VisionInfo>;

  VisionFleet(FleetOptions options, std::unique_ptr<HttpClient> client);
  Status still_wanted(Deadline deadline, const CancelFlag* cancel) const;
  ClientCall call_to(std::size_t server, std::string method, std::string target, std::string_view tenant,
                     std::chrono::milliseconds timeout, Deadline deadline, const CancelFlag* cancel) const;
  Outcome read_info(std::size_t server, Deadline deadline, const CancelFlag* cancel);
  void record(std::size_t server, const Outcome& outcome, const FeatureId* about = nullptr);
  Outcome admit(std::size_t server, const Question& question, Info& info);
  Outcome ask(std::size_t server, const Question& question, const VisionInfo& info, RemoteFeature& out, bool by_folder);
  Result<RemoteFeature> ask_each(const Question& question);
  Result<RemoteFeature> ask_in_order(const Question& question);
  bool answers_probe(std::size_t server, Deadline deadline, const CancelFlag* cancel);
  Outcome send_removal(std::size_t server, const FeatureId& id, std::string_view tenant, Deadline deadline,
                       const CancelFlag* cancel);
  void probe(std::size_t server);
  void probe_loop(std::size_t server);

  const FleetOptions options_;
  const std::unique_ptr<HttpClient> client_;
  Roster roster_;
  std::string folder_;
  std::function<Result<Feature>(const FeatureKey&)> read_folder_;

  CancelFlag stopping_ = false;  // ends probes
  std::mutex mutex_;             // for wake_
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
};

}  // namespace chiasm
