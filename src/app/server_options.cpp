#include "app/server_options.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <limits>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/options.h"

namespace chiasm {
namespace {

constexpr const char* kAddress = "127.0.0.1";

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3));
}

bool is_duration(double seconds) { return seconds > 0 && seconds <= 86'400; }

void add_file(CLI::App& app, const std::string& name, std::string& file, const std::string& help) {
  app.add_option(name, file, help)->type_name("FILE");
  expect_something(app.get_option(name));
}

}  // namespace

void add_server_options(CLI::App& app, ServerFlags& flags, const std::string& listen) {
  flags.listen = listen;
  app.add_option("--listen", flags.listen,
                 "Address and port: HOST:PORT, or :PORT for localhost only; 0.0.0.0 or [::] for\nall networks, port 0 "
                 "for any free one (default: " +
                     listen + ")")
      ->type_name("[HOST]:PORT");
  add_file(app, "--api-key-file", flags.api_key_file,
           "Ask for one of the keys in FILE (one a line) on every route but /health and the\npage; sent as "
           "'Authorization: Bearer KEY'");
  app.add_flag("--insecure", flags.insecure, "Listen beyond localhost without asking for a key");
  add_file(app, "--tls-cert", flags.tls_cert, "Serve HTTPS with the certificate (chain) in this PEM file");
  add_file(app, "--tls-key", flags.tls_key, "and the key in this one");
  add_file(app, "--tls-client-ca", flags.tls_client_ca, "Only for clients with a certificate that this CA signed");
  expect_whole(app.add_option("--max-requests", flags.max_requests,
                              "Work on N requests at once, and tell others to come back (default: 256)"),
               1, 4096);
  expect_whole(app.add_option("--max-connections", flags.max_connections, "Hold N connections (default: 1024)"), 1,
               65'536);
  add_size_option(app, "--max-body", flags.max_body, "Take request bodies of up to SIZE (default: 128MiB)");
  add_size_option(app, "--max-header", flags.max_header, "Take request headers of up to SIZE (default: 16KiB)");
  expect_number(app.add_option("--request-timeout", flags.request_timeout,
                               "Give a request X seconds at most; it may ask for less with the header\n"
                               "x-request-timeout-ms (default: 600)"),
                "seconds, above 0 and at most 86400", is_duration);
  expect_number(app.add_option("--drain-timeout", flags.drain_timeout,
                               "Once told to end, let running requests finish for X seconds (default: 30)"),
                "seconds, above 0 and at most 86400", is_duration);
  app.add_option("--log-level", flags.log_level, "debug, info, warn, error or off (default: info)")
      ->type_name("LEVEL")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}).description(""));
  app.add_option("--log-format", flags.log_format, "text or json, a line an event on standard error (default: text)")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"text", "json"}).description(""));
  add_threads_option(app, flags.threads);
  app.allow_config_extras(CLI::config_extras_mode::error);  // a misspelt name must not pass for an option
  app.set_config("--config", "", "Read options from this file, as 'listen = \":9001\"' a line")->type_name("FILE");
}

LogLevel log_level_of(const ServerFlags& flags) {
  if (flags.log_level == "debug") return LogLevel::kDebug;
  if (flags.log_level == "warn") return LogLevel::kWarn;
  if (flags.log_level == "error") return LogLevel::kError;
  return flags.log_level == "off" ? LogLevel::kOff : LogLevel::kInfo;
}

LogFormat log_format_of(const ServerFlags& flags) {
  return flags.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
}

std::chrono::milliseconds drain_time_of(const ServerFlags& flags) { return milliseconds_of(flags.drain_timeout); }

Result<ListenAddress> parse_listen(const std::string& text) {
  ListenAddress out;
  const std::size_t colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  const std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (error != std::errc() || end != port.data() + port.size())
    return fail(Code::kInvalidArgument, "--listen: expected [HOST]:PORT with a port from 0 to 65535, got '{}'", text);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return fail(Code::kInvalidArgument, "--listen: an IPv6 address stands in brackets, as in [::1]:8080, got '{}'",
                text);
  }
  if (host == "*") host = "0.0.0.0";
  out.host = host.empty() || host == "localhost" ? kAddress : host;
  return out;
}

Result<FrontOptions> front_options(const ServerFlags& flags) {
  FrontOptions out;
  ASSIGN_OR_RETURN(const ListenAddress address, parse_listen(flags.listen));
  out.server.host = address.host;
  out.server.port = address.port;
  out.insecure = flags.insecure;
  out.version = CHIASM_VERSION;
  if (!flags.api_key_file.empty()) {
    auto keys = Secrets::load(flags.api_key_file);
    // Whatever is wrong with a file is not wrong usage.
    if (!keys) return fail(Code::kFailedPrecondition, "--api-key-file: {}", keys.error().message);
    out.keys = std::move(*keys);
  }
  if (flags.tls_cert.empty() != flags.tls_key.empty())
    return fail(Code::kInvalidArgument, "--tls-cert and --tls-key are given together");
  if (!flags.tls_client_ca.empty() && flags.tls_cert.empty())
    return fail(Code::kInvalidArgument, "--tls-client-ca needs --tls-cert and --tls-key");
  if (!flags.tls_cert.empty()) out.server.tls = ServerTls{flags.tls_cert, flags.tls_key, flags.tls_client_ca};
  out.server.max_requests = flags.max_requests.value_or(out.server.max_requests);
  out.server.max_connections = flags.max_connections.value_or(out.server.max_connections);
  if (flags.max_header) {
    constexpr std::uint64_t kLeast = 1 << 10, kMost = 1 << 20;
    if (*flags.max_header < kLeast || *flags.max_header > kMost)
      return fail(Code::kInvalidArgument, "--max-header: expected 1KiB to 1MiB, got {} bytes", *flags.max_header);
    out.server.max_header = static_cast<std::uint32_t>(*flags.max_header);
  }
  if (flags.request_timeout) out.server.request_timeout = milliseconds_of(*flags.request_timeout);
  // Bodies are held while they are worked on; one of the largest kind always fits.
  if (flags.max_body) out.server.max_buffered = std::max(out.server.max_buffered, *flags.max_body * 2);
  return out;
}

}  // namespace chiasm
