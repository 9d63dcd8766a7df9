// Whether one server is worth asking: a state machine that is told what happened and when.
//
//   healthy    → ejected     after `eject_after` failed requests, or as many failed probes, in a row; one picture
//   counts
//                            once, or a single one that no server can take would eject them all
//   healthy    → ejected     after `eject_late` requests in a row to which it said nothing in the callers' time
//   ejected    → healthy     after `return_after` good probes in a row; then one failed request ejects it again, until
//                            one succeeds: a server that is ready but cannot work is not asked thrice each time
//   healthy    → overloaded  it said so; until its Retry-After has passed, without counting as a failure
//   any        → mismatch    it serves another model; until it serves the expected one
//
// It has no clock, no thread and no lock. Thread contract: one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/deadline.h"

namespace chiasm {

enum class ServerCondition : std::uint8_t { kHealthy, kOverloaded, kEjected, kMismatch };
std::string_view condition_name(ServerCondition condition);  // "healthy"

struct HealthOptions {
  int eject_after = 3;   // failures in a row
  int eject_late = 3;    // requests without an answer, in a row
  int return_after = 2;  // good probes in a row
  std::chrono::milliseconds probe_interval{2'000};
  std::chrono::milliseconds max_probe_interval{10'000};  // while ejected it doubles up to here
  double jitter = 0.1;                                   // of an interval, either way, so that probes do not march
  std::chrono::milliseconds retry_after{1'000};          // where an overloaded server names none
  std::chrono::milliseconds max_retry_after{30'000};     // and the most that is believed
};

class ServerHealth {
 public:
  // Healthy until shown otherwise; the first probe is due at `now`.
  ServerHealth(const HealthOptions& options, std::uint64_t seed, Deadline now);

  ServerCondition condition(Deadline now) const;
  int consecutive_failures() const;
  Deadline next_probe() const { return next_probe_; }

  // What happened. True: the condition changed by it. An ejected server comes back by its probes alone: a request that
  // succeeds may have begun long before.
  void request_succeeded();
  bool request_failed(std::uint64_t picture = 0);  // a name of what was asked about; 0: of nothing in particular
  bool request_late();                             // nothing came in the time that the caller had
  void readmit(Deadline now);                      // ejected, and one probe that was good: nobody else is left
  bool overloaded(Deadline now, std::optional<std::chrono::milliseconds> retry_after);
  bool probe_succeeded(Deadline now);
  bool probe_failed(Deadline now);
  bool set_mismatch(bool mismatch);

 private:
  bool eject_if(bool enough);
  void schedule(Deadline now, std::chrono::milliseconds interval);

  const HealthOptions options_;
  std::uint64_t random_;
  bool ejected_ = false, mismatch_ = false;
  int failed_requests_ = 0, failed_probes_ = 0;  // in a row
  int late_requests_ = 0;                        // likewise
  std::vector<std::uint64_t> failed_pictures_;   // that are among failed_requests_
  int good_probes_ = 0;                          // in a row, while ejected
  std::chrono::milliseconds back_off_;           // the interval after the next failed probe of an ejected server
  Deadline overloaded_until_ = Deadline::min();
  Deadline next_probe_;
};

}  // namespace chiasm
