// Options that every server takes: where it listens, who may ask, limits, logs, an orderly end.
//
// Thread contract: plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "roles/front.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}  // namespace CLI

namespace chiasm {

struct ServerFlags {
  std::string listen;
  std::string api_key_file;
  bool insecure = false;
  std::string tls_cert, tls_key, tls_client_ca;
  std::optional<int> max_requests, max_connections;
  std::optional<std::uint64_t> max_body, max_header;
  std::optional<double> request_timeout;
  double drain_timeout = 30;
  std::string log_level = "info", log_format = "text";
  int threads = 0;
};

// `listen` is the default of --listen.
void add_server_options(CLI::App& app, ServerFlags& flags, const std::string& listen);

LogLevel log_level_of(const ServerFlags& flags);
LogFormat log_format_of(const ServerFlags& flags);
std::chrono::milliseconds drain_time_of(const ServerFlags& flags);

// kInvalidArgument for addresses, files and pairs of options that make no sense.
Result<FrontOptions> front_options(const ServerFlags& flags);

struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
};
// "HOST:PORT", "[::1]:PORT", ":PORT" or "PORT"; without a host it is localhost.
Result<ListenAddress> parse_listen(const std::string& text);

}  // namespace chiasm
