// An HTTP/1.1 client that blocks: deadlines, cancellation, limits, TLS, connections kept for the next call.
//
// Thread contract: send() may be called from any thread; each call uses a connection of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "http/message.h"

namespace chiasm {

struct Url {
  std::string scheme;  // "http" or "https", lower case
  std::string host;    // lower case; an IPv6 address without its brackets
  std::uint16_t port = 0;
  std::string target = "/";  // path and query, as given, percent-encoded

  // kInvalidArgument for another scheme, user names, an empty host, control characters, more than 8 KiB.
  static Result<Url> parse(std::string_view text);
  std::string origin() const;  // "http://host:9001"
};

struct ClientOptions {
  std::filesystem::path ca_file;           // trusted beside the system's where given
  std::filesystem::path certificate, key;  // what the client shows, PEM; none where empty
  std::size_t kept_connections = 16;       // idle ones, per origin
};

struct ClientCall {
  std::string method = "GET";
  Url url;
  std::optional<std::string>
      address;  // an IP address to connect to instead of resolving url.host; TLS still checks the host
  Headers headers;
  std::string_view body;
  Deadline deadline = kNoDeadline;
  const CancelFlag* cancel = nullptr;
  const CancelFlag* abandon = nullptr;  // a second reason to give up, as kCancelled too
  std::uint64_t max_body = 64 << 20;
};

class HttpClient {
 public:
  static Result<std::unique_ptr<HttpClient>> create(const ClientOptions& options = {});
  virtual ~HttpClient() = default;

  // Any status is an answer. Errors: kUnavailable (not resolved, refused, reset, TLS), kDeadlineExceeded, kCancelled,
  // kResourceExhausted (body beyond max_body), kDataLoss (not HTTP). Redirects are not followed. A kept connection that
  // the server has closed meanwhile is replaced once, before anything was answered.
  virtual Result<HttpResponse> send(const ClientCall& call) = 0;
};

// The addresses of a host ("10.0.0.1", "::1"), in the resolver's order; an address is its own answer.
Result<std::vector<std::string>> resolve(const std::string& host);

// Whether the address is one of the public internet: not loopback, private, link-local, shared (100.64/10), multicast,
// documentation, reserved, unspecified, nor one of these behind an IPv4-mapped, 6to4 or NAT64 IPv6 address.
bool is_public_address(std::string_view address);
bool is_loopback_address(std::string_view address);

struct FetchRules {
  std::vector<std::string> domains;  // hosts that may be asked; ".example.org" stands for all below it
  bool private_networks = false;     // addresses that are not public too
  std::uint64_t max_body = 32 << 20;
  int max_redirects = 3;
};

// GET of a foreign URL: the host must be listed, is resolved once, every address must be public, and the checked
// address is the one connected to; each redirect passes the same. kInvalidArgument for what the rules forbid (the
// message holds no address), kUnavailable for what cannot be had.
Result<HttpResponse> fetch(HttpClient& client, std::string_view url, const FetchRules& rules, Deadline deadline,
                           const CancelFlag* cancel);

}  // namespace chiasm
