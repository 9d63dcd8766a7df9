// A server's life from listening to its orderly end, the same for all three programs.
//
// Thread contract: the main thread.
#pragma once

#include <chrono>
#include <functional>
#include <vector>

#include "base/log.h"
#include "base/metrics.h"
#include "base/result.h"
#include "features/feature_source.h"
#include "roles/front.h"

namespace chiasm {

class Console;
class Lifetime;

struct Serving {
  Console& console;
  Lifetime& lifetime;
  Metrics& metrics;
  Log& log;
};

// Says in the log where the features folder of a server cannot be written.
void warn_of_folder(const TieredFeatureSource& source, Log& log);

// Listens at once, so that health checks see it; loads; is ready; waits for the signal; drains. Prints
// "listening on URL" when it listens and "ready" when it is. What still runs when the drain time is over is ended by
// `give_up` (may be null). The exit code: 0 where everything that ran was finished.
Result<int> serve_until_told(const Serving& serving, FrontOptions options, std::vector<Route> routes,
                             std::chrono::milliseconds drain_time, const std::function<Status()>& load,
                             const std::function<void()>& give_up);

}  // namespace chiasm
