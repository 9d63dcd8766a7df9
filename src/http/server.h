// An HTTP/1.1 server: connections on a few threads, handlers on threads of their own, limits on everything.
//
// A handler blocks as it likes; it holds one of `max_requests` permits from before the body is read until the answer is
// written, and without a permit the client is told at once. Routes of the control lane (health, metrics) need no
// permit, so that they answer when everything else is full. Nothing in here knows what the bodies mean.
// Thread contract: start, drain and stop from one thread; an Exchange belongs to its handler's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/message.h"

namespace chiasm {

// One request on its way to an answer: respond() once, or start(), write()..., finish(). How the message is framed is
// the server's to say: of Content-Length, Transfer-Encoding and Connection only "Connection: close" is heeded.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;
  // The body, given away: for handlers that keep it.
  virtual std::string take_body() = 0;

  virtual void respond(HttpResponse response) = 0;

  // A streamed answer. write() blocks while the client reads too slowly, up to the write timeout; false once it left.
  virtual void start(int status, Headers headers) = 0;
  virtual bool write(std::string_view bytes) = 0;
  virtual void finish() = 0;

  // The client closed the connection (or only its sending side, which looks the same), or does not read for as long as
  // the write timeout, or the server is being stopped for good.
  virtual bool gone() const = 0;
  // `callback` runs once when that happens, at once if it has; on another thread, so it must be quick and thread-safe.
  // It is not called after the handler returned.
  virtual void on_gone(std::function<void()> callback) = 0;
};

using Handler = std::function<void(Exchange&)>;

struct Route {
  enum class Lane : std::uint8_t { kWork, kControl };

  std::string method;   // "GET" answers HEAD too, unless HEAD has a route
  std::string pattern;  // "/v1/features/{id}": a capture is one non-empty segment
  Handler handler;
  Lane lane = Lane::kWork;
  bool open = false;           // for the gate: answered without a key
  std::uint64_t max_body = 0;  // bytes; 0: a body is refused
};

struct ServerTls {
  std::filesystem::path certificate, key;  // PEM; the certificate's file may hold its chain
  std::filesystem::path client_ca;         // where given, clients need a certificate that it signed
};

// Whoever looks at the finished exchange: for logs and metrics. `route` is the pattern, "" where none matched.
struct AccessRecord {
  std::string_view method, route, path, peer, request_id;
  int status = 0;
  std::uint64_t request_bytes = 0, response_bytes = 0;
  double ms = 0;
  bool client_left = false;  // before it had the whole answer
  bool cut = false;          // the server ended before it had the whole answer
};

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address, or a name that resolves to one
  std::uint16_t port = 0;          // 0: any free one
  std::optional<ServerTls> tls;

  int max_connections = 1024;
  int max_requests = 256;                   // permits of the work lane
  std::uint64_t max_buffered = 1ULL << 30;  // bytes of bodies held at once, all connections together
  std::uint32_t max_header = 16 << 10;      // bytes of request line and headers
  int max_headers = 100;
  std::chrono::milliseconds header_timeout{10'000};      // from the first byte to the end of the headers
  std::chrono::milliseconds body_timeout{60'000};        // without progress
  std::chrono::milliseconds idle_timeout{75'000};        // between requests
  std::chrono::milliseconds write_timeout{60'000};       // without progress
  std::chrono::milliseconds request_timeout{600'000};    // the deadline of a request that names none
  std::string deadline_header = "x-request-timeout-ms";  // milliseconds from its arrival, at most request_timeout

  // Asked before the body is read; an answer ends the exchange. `route` is the matched one.
  std::function<std::optional<HttpResponse>(const HttpRequest& head, const Route& route)> gate;
  // The bodies of the server's own errors: 400, 404, 405, 408, 413, 414, 431, 500, 503 (with Retry-After).
  std::function<HttpResponse(int status, std::string_view message)> error;
  std::function<void(const AccessRecord&)> on_done;  // may be null; any thread
  std::function<void(std::string_view)> on_failure;  // what a handler threw, for the log; may be null
};

class HttpServer {
 public:
  // Listens. Errors: the address is in use or no address, unreadable certificates.
  static Result<std::unique_ptr<HttpServer>> start(ServerOptions options, std::vector<Route> routes);
  virtual ~HttpServer() = default;  // stops

  virtual std::uint16_t port() const = 0;
  virtual int running() const = 0;  // exchanges of the work lane now

  // Refuses new work (503, and 'Connection: close' on every answer) but goes on listening, so that health checks see
  // it; returns when nothing runs or at `deadline`, true when nothing runs.
  virtual bool drain(Deadline deadline) = 0;
  // Closes everything; running handlers see gone(). Returns when they have returned.
  virtual void stop() = 0;
};

}  // namespace chiasm
