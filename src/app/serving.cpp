#include "app/serving.h"

#include <utility>

#include "app/console.h"
#include "app/lifetime.h"
#include "app/program.h"
#include "base/stopwatch.h"

namespace chiasm {

void warn_of_folder(const TieredFeatureSource& source, Log& log) {
  if (source.disk() == nullptr) return;
  if (const Status writable = source.disk()->check_writable(); !writable) log.warn(writable.error().message);
}

Result<int> serve_until_told(const Serving& serving, FrontOptions options, std::vector<Route> routes,
                             std::chrono::milliseconds drain_time, const std::function<Status()>& load,
                             const std::function<void()>& give_up) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Front> front,
                   or_usage(Front::start(std::move(options), std::move(routes), serving.metrics, serving.log)));
  serving.console.line("listening on {}", front->url());
  const Stopwatch watch;
  RETURN_IF_ERROR(load());
  front->set_ready(true);
  serving.lifetime.serving();
  serving.console.line("ready");
  serving.log.info("ready", {{"url", front->url()}, {"load_ms", watch.ms()}});

  serving.lifetime.wait();
  serving.log.info("ending", {{"running", front->running()}});
  const bool finished = front->drain(std::chrono::steady_clock::now() + drain_time, give_up);
  if (finished) {
    serving.log.info("ended");
  } else {
    serving.log.warn("ended before all requests were answered (--drain-timeout)");
  }
  return finished ? kExitSuccess : kExitFault;
}

}  // namespace chiasm
