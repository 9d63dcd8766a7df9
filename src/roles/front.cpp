#include "roles/front.h"

#include <mutex>
#include <utility>

#include <nlohmann/json.hpp>

#include "http/client.h"
#include "roles/replies.h"

namespace chiasm {
namespace {

// For errors to reach their clients once what runs was given up: what the engine is at ends with its step, and the step
// of a long prompt takes seconds on a small machine. Over as soon as all are told.
constexpr std::chrono::milliseconds kLastWords{10'000};

std::string json_of(std::string_view key, std::string_view value) {
  return nlohmann::ordered_json{{key, value}}.dump();
}

// Counts and times by route; a path that matched no route is not a label, or strangers could make any number of them.
void record(Metrics& metrics, const AccessRecord& access) {
  std::string route = access.route.empty() ? "none" : std::string(access.route);
  if (route.starts_with("/web/")) route = "/web/*";  // the page's files: of interest together only
  const std::string status = access.client_left ? "client_left" : access.cut ? "cut" : std::to_string(access.status);
  metrics.counter("chiasm_http_requests_total", "Answered HTTP requests", {{"route", route}, {"status", status}}).add();
  metrics
      .histogram("chiasm_http_request_seconds", "From the first byte of a request to the last of its answer",
                 duration_buckets(), {{"route", route}})
      .observe(access.ms / 1e3);
  const auto bytes = [&](const char* name, const char* help, std::uint64_t count) {
    metrics.counter(name, help, {{"route", route}}).add(static_cast<double>(count));
  };
  bytes("chiasm_http_request_bytes_total", "Bytes of request bodies", access.request_bytes);
  bytes("chiasm_http_response_bytes_total", "Bytes of answers", access.response_bytes);
}

void note(Log& log, const AccessRecord& access) {
  // Probes and scrapes come every few seconds and say nothing.
  const bool routine =
      access.route.starts_with("/health") || access.route == "/metrics" || access.route == "/v1/status";
  log.write(routine ? LogLevel::kDebug : LogLevel::kInfo, "request",
            {{"method", std::string(access.method)},
             {"route", access.route.empty() ? "none" : std::string(access.route)},
             {"status", access.status},
             {"ms", access.ms},
             {"request", std::string(access.request_id)},
             {"in", access.request_bytes},
             {"out", access.response_bytes},
             {"peer", std::string(access.peer)},
             {"left", access.client_left},
             {"cut", access.cut}});
}

}  // namespace

struct Front::State {
  std::string scheme, host;
  std::atomic<bool> ready = false, draining = false;
  std::atomic<HttpServer*> running = nullptr;  // for the metrics, which may be read before `server` is assigned
  std::unique_ptr<HttpServer> server;          // last: its handlers use what stands above
};

std::string_view shown_key(const HttpRequest& request) {
  const auto header = request.headers.find("Authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (!header || header->size() <= kScheme.size()) return {};
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    const char c = (*header)[i];
    if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != kScheme[i]) return {};
  }
  std::string_view key = header->substr(kScheme.size());
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  while (!key.empty() && key.back() == ' ') key.remove_suffix(1);
  return key;
}

Front::Front(std::unique_ptr<State> state) : state_(std::move(state)) {}
Front::~Front() = default;

Result<std::unique_ptr<Front>> Front::start(FrontOptions options, std::vector<Route> routes, Metrics& metrics,
                                            Log& log) {
  const bool by_certificate = options.server.tls && !options.server.tls->client_ca.empty();
  if (options.keys.empty() && !by_certificate && !options.insecure) {
    ASSIGN_OR_RETURN(const std::vector<std::string> addresses, resolve(options.server.host));
    for (const std::string& address : addresses)
      if (!is_loopback_address(address))
        return fail(Code::kInvalidArgument,
                    "{} can be reached from other machines, and no key is asked for: name one with --api-key-file, "
                    "listen on localhost, or say --insecure",
                    options.server.host);
  }
  auto state = std::make_unique<State>();
  State* const shared = state.get();
  shared->scheme = options.server.tls ? "https" : "http";
  shared->host =
      options.server.host.find(':') == std::string::npos ? options.server.host : "[" + options.server.host + "]";

  const auto control = [](std::string pattern, Handler handler, bool open) {
    return Route{"GET", std::move(pattern), std::move(handler), Route::Lane::kControl, open, 0};
  };
  routes.push_back(
      control("/health/live", [](Exchange& exchange) { reply_json(exchange, json_of("status", "live")); }, true));
  routes.push_back(control(
      "/health/ready",
      [shared](Exchange& exchange) {
        if (shared->draining) return reply_json(exchange, json_of("status", "draining"), 503);
        if (!shared->ready) return reply_json(exchange, json_of("status", "loading"), 503);
        reply_json(exchange, json_of("status", "ready"));
      },
      true));
  routes.push_back(control(
      "/version",
      [version = options.version](Exchange& exchange) { reply_json(exchange, json_of("version", version)); }, false));
  routes.push_back(control(
      "/metrics",
      [&metrics](Exchange& exchange) {
        HttpResponse out;
        out.headers.set("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
        out.body = metrics.text();
        exchange.respond(std::move(out));
      },
      false));

  ServerOptions& server = options.server;
  server.gate = [shared, keys = std::move(options.keys), by_certificate](
                    const HttpRequest& head, const Route& route) -> std::optional<HttpResponse> {
    if (const std::string_view key = shown_key(head);
        route.open || keys.empty() || (by_certificate && !head.client_name.empty()) || keys.contains(key)) {
      if (route.lane == Route::Lane::kControl || shared->ready) return std::nullopt;
      return error_response({ErrorKind::kOverloaded, "The model is being loaded. Try again shortly.", {}});
    }
    const std::string_view key = shown_key(head);
    return error_response({ErrorKind::kUnauthorized,
                           key.empty() ? "No API key was given. Send it as 'Authorization: Bearer KEY'."
                                       : "The API key is not one of this server's.",
                           {}});
  };
  server.error = [](int status, std::string_view message) {
    HttpResponse out = error_response({kind_of_status(status), std::string(message), {}});
    out.status = status;
    return out;
  };
  server.on_done = [&metrics, &log](const AccessRecord& access) {
    record(metrics, access);
    note(log, access);
  };
  server.on_failure = [&log](std::string_view what) { log.error("handler failed", {{"what", std::string(what)}}); };
  metrics.on_read([shared](MetricReader& reader) {
    const HttpServer* server_now = shared->running;
    reader.gauge("chiasm_http_running", "Requests that hold a permit now",
                 server_now == nullptr ? 0 : server_now->running());
    reader.gauge("chiasm_ready", "1 when /health/ready answers 200", shared->ready && !shared->draining ? 1 : 0);
  });
  ASSIGN_OR_RETURN(shared->server, HttpServer::start(std::move(server), std::move(routes)));
  shared->running = shared->server.get();
  return std::unique_ptr<Front>(new Front(std::move(state)));
}

std::string Front::url() const { return fmt::format("{}://{}:{}", state_->scheme, state_->host, port()); }
std::uint16_t Front::port() const { return state_->server->port(); }
int Front::running() const { return state_->server->running(); }
void Front::set_ready(bool ready) { state_->ready = ready; }

bool Front::drain(Deadline deadline, const std::function<void()>& give_up) {
  state_->draining = true;
  const bool finished = state_->server->drain(deadline);
  if (!finished && give_up) {
    give_up();
    state_->server->drain(std::chrono::steady_clock::now() + kLastWords);
  }
  state_->server->stop();
  return finished;
}

}  // namespace chiasm
