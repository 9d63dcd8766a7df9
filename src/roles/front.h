// What every server of chiasm has around its own routes: keys, health, version, metrics, access log, an orderly end.
//
// Thread contract: built, run and drained by one thread; set_ready may be called from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/secret.h"
#include "http/server.h"

namespace chiasm {

struct FrontOptions {
  ServerOptions server;   // gate, error, on_done and on_failure are set here
  Secrets keys;           // empty: no key is asked for
  bool insecure = false;  // listens beyond loopback without a key
  std::string version;
};

class Front {
 public:
  // Routes of its own: GET /health/live, /health/ready, /version, /metrics. Errors: beyond loopback without keys,
  // client certificates or `insecure` (kInvalidArgument), and those of HttpServer::start.
  static Result<std::unique_ptr<Front>> start(FrontOptions options, std::vector<Route> routes, Metrics& metrics,
                                              Log& log);
  ~Front();

  // "http://127.0.0.1:8080"
  std::string url() const;
  std::uint16_t port() const;
  int running() const;

  // /health/ready answers 200 from now on, or 503 with the reason.
  void set_ready(bool ready);

  // Not ready, no new work, what runs may finish until `deadline`; what has not by then is told so through `give_up`
  // (may be null), has two seconds to say it to its clients, and then everything is closed. True when all finished.
  bool drain(Deadline deadline, const std::function<void()>& give_up);

 private:
  struct State;
  explicit Front(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The key that a request shows: "Authorization: Bearer KEY"; empty when none.
std::string_view shown_key(const HttpRequest& request);

}  // namespace chiasm
