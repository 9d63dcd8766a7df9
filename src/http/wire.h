// The client's side of one connection, plain or TLS, on a socket that never blocks: who uses it waits with wait().
//
// Sockets and OpenSSL without Asio: a blocking call then needs one descriptor and no thread beside the caller's, and a
// deadline is a poll().
// Thread contract: an object belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/result.h"
#include "http/client_tls.h"

namespace chiasm {

// Until when a call waits.
struct Patience {
  Deadline deadline = kNoDeadline;
  const CancelFlag* cancel = nullptr;
  const CancelFlag* abandon = nullptr;  // a second one, of somebody else

  bool ended_early() const { return (cancel != nullptr && *cancel) || (abandon != nullptr && *abandon); }
  Status check(std::string_view doing) const;  // kDeadlineExceeded, kCancelled
};

class Wire {
 public:
  // `tls` is null for a plain connection; else the peer must be `host`. Errors: kUnavailable, and those of Patience.
  static Result<std::unique_ptr<Wire>> connect(const std::string& address, std::uint16_t port, const ClientTls* tls,
                                               const std::string& host, const Patience& patience);
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  enum class Outcome : std::uint8_t { kMoved, kWantRead, kWantWrite, kEnd, kBroken };
  struct Step {
    Outcome outcome = Outcome::kBroken;
    std::size_t bytes = 0;
  };
  Step read_some(char* into, std::size_t size);
  Step write_some(std::string_view from);

  // Waits for what `wanted` says, or, with `also_read`, for something to read.
  Status wait(Outcome wanted, bool also_read, const Patience& patience) const;
  // Whether the peer has closed an idle connection, or said something that nobody asked for.
  bool stale() const;
  // Why the last step was broken, in words.
  const std::string& trouble() const { return trouble_; }

 private:
  Wire(int socket, SSL* tls) : socket_(socket), tls_(tls) {}
  Status handshake(const Patience& patience);
  Step plain_step(std::int64_t result, Outcome retry);
  Step tls_step(int result);

  int socket_;
  SSL* tls_;
  std::string trouble_;
};

}  // namespace chiasm
