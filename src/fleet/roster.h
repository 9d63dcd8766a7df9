// The servers of a fleet: what each last said of itself, how healthy it is, and what became of its requests.
//
// Says who may be asked and keeps count; sends nothing. Lines for the operator's log name servers, errors for callers
// do not. Thread contract: any thread; the log is called with no lock held.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "features/feature.h"
#include "fleet/fleet_options.h"
#include "fleet/health.h"
#include "fleet/vision_info.h"

namespace chiasm {

class Roster {
 public:
  // `options` must outlive it, with a clock set.
  explicit Roster(const FleetOptions& options);

  std::size_t size() const { return origins_.size(); }
  const std::vector<std::string>& origins() const { return origins_; }

  struct Standing {
    ServerCondition condition = ServerCondition::kHealthy;
    std::shared_ptr<const VisionInfo> info;  // null until it answered once
    Error mismatch;                          // where the condition is kMismatch
  };
  Standing standing(std::size_t server) const;
  std::vector<ServerState> states() const;

  // The info that keys are made with: of a server that may be asked before one that may not, of the expected digest
  // before accepted ones, in the order of the list. What is remembered of servers that are down counts too, so that
  // pictures known already can still be named. Null: none is known.
  std::shared_ptr<const VisionInfo> preferred_info() const;

  // A server's own word. kFailedPrecondition, naming both sides, where it does not fit; then it is kept out.
  Status learn(std::size_t server, const VisionInfo& info);
  // Whether the info is to be read again: never read, old, or something failed since.
  bool info_due(std::size_t server) const;

  // What became of a request about a feature.
  void count_request(std::size_t server);
  void request_succeeded(std::size_t server);
  void request_failed(std::size_t server, std::string_view what, std::uint64_t picture);  // as in ServerHealth
  // The caller's time ran out while it was asked.
  void request_late(std::size_t server, std::string_view what);
  // Raised when the server is ejected; a new one once it is back.
  std::shared_ptr<const CancelFlag> ejection(std::size_t server) const;
  // True: the server is ejected, nobody is trying it out of turn and the last such try was a while ago; end_retrial()
  // follows. True from that: it is back.
  bool begin_retrial(std::size_t server);
  bool end_retrial(std::size_t server, bool ready);
  void overloaded(std::size_t server, std::optional<std::chrono::milliseconds> retry_after, std::string_view what);
  // It answered with something of another model than its info says: the info is due.
  void info_outdated(std::size_t server);

  // True: the server's probe is due, and is the caller's until one of the three below is called.
  bool begin_probe(std::size_t server);
  void probe_succeeded(std::size_t server);
  void probe_failed(std::size_t server, std::string_view what);
  void probe_abandoned(std::size_t server);
  Deadline next_probe(std::size_t server) const;

  // For the operator.
  void log(std::size_t server, std::string_view what) const;

 private:
  struct Entry {
    ServerHealth health;
    ServerState counts;  // origin, condition, consecutive_failures: filled in by states()
    std::shared_ptr<const VisionInfo> info;
    Deadline info_read{};
    bool info_stale = true;
    bool probing = false;
    std::shared_ptr<CancelFlag> ejection = std::make_shared<CancelFlag>(false);
    bool on_trial = false;
    Deadline next_trial = Deadline::min();
    Error mismatch;
  };

  static void follow(Entry& entry, Deadline now);  // its ejection flag follows its health
  Error misfit(const VisionInfo& info) const;      // an empty message: it fits
  void note_preprocessors(std::size_t server, const VisionInfo& info) const;

  const FleetOptions& options_;
  const std::vector<std::string> origins_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

}  // namespace chiasm
