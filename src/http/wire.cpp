#include "http/wire.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace chiasm {
namespace {

using std::chrono::milliseconds;

// How long a raised flag may go unnoticed.
constexpr milliseconds kGlance{25};

std::string words(int error) { return std::generic_category().message(error); }

// Returns the size of what it filled in, 0 when the text is no address.
socklen_t socket_address(const std::string& address, std::uint16_t port, sockaddr_storage& into) {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&into);
  if (::inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return sizeof *v4;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&into);
  if (::inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return sizeof *v6;
  }
  return 0;
}

}  // namespace

Status Patience::check(std::string_view doing) const {
  if (ended_early()) return fail(Code::kCancelled, "cancelled while {}", doing);
  if (std::chrono::steady_clock::now() >= deadline)
    return fail(Code::kDeadlineExceeded, "the deadline came while {}", doing);
  return {};
}

Result<std::unique_ptr<Wire>> Wire::connect(const std::string& address, std::uint16_t port, const ClientTls* tls,
                                            const std::string& host, const Patience& patience) {
  sockaddr_storage target{};
  const socklen_t size = socket_address(address, port, target);
  if (size == 0) return fail(Code::kInvalidArgument, "'{}' is no address to connect to", address);
  const int socket = ::socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return fail(Code::kUnavailable, "no socket to be had: {}", words(errno));
  std::unique_ptr<Wire> wire(new Wire(socket, nullptr));
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);

  int error = ::connect(socket, reinterpret_cast<const sockaddr*>(&target), size) == 0 ? 0 : errno;
  if (error == EINPROGRESS || error == EINTR) {
    RETURN_IF_ERROR(wire->wait(Outcome::kWantWrite, false, patience));
    socklen_t length = sizeof error;
    if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  }
  if (error != 0) return fail(Code::kUnavailable, "cannot connect to {} port {}: {}", address, port, words(error));
  if (tls == nullptr) return wire;
  wire->tls_ = tls->open(socket, host);
  if (wire->tls_ == nullptr) return fail(Code::kUnavailable, "cannot begin TLS with '{}'", host);
  if (Status status = wire->handshake(patience); !status)
    return fail_in(fmt::format("TLS with '{}'", host), status.error());
  return wire;
}

Wire::~Wire() {
  if (tls_ != nullptr) {
    ERR_clear_error();
    if (SSL_is_init_finished(tls_)) SSL_shutdown(tls_);  // says goodbye if that does not block
    SSL_free(tls_);
  }
  ::close(socket_);
}

Status Wire::handshake(const Patience& patience) {
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(tls_);
    if (result == 1) return {};
    const Step step = tls_step(result);
    if (step.outcome == Outcome::kWantRead || step.outcome == Outcome::kWantWrite) {
      RETURN_IF_ERROR(wait(step.outcome, false, patience));
      continue;
    }
    if (const long verdict = SSL_get_verify_result(tls_); verdict != X509_V_OK)
      return fail(Code::kUnavailable, "its certificate is refused: {}", X509_verify_cert_error_string(verdict));
    return fail(Code::kUnavailable, "no handshake: {}",
                step.outcome == Outcome::kEnd ? "the connection was closed" : trouble_.c_str());
  }
}

Wire::Step Wire::plain_step(std::int64_t result, Outcome retry) {
  if (result > 0) return {Outcome::kMoved, static_cast<std::size_t>(result)};
  if (result == 0) return {Outcome::kEnd, 0};
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return {retry, 0};
  trouble_ = words(errno);
  return {Outcome::kBroken, 0};
}

Wire::Step Wire::tls_step(int result) {
  const int error = errno;
  if (result > 0) return {Outcome::kMoved, static_cast<std::size_t>(result)};
  switch (SSL_get_error(tls_, result)) {
    case SSL_ERROR_WANT_READ: return {Outcome::kWantRead, 0};
    case SSL_ERROR_WANT_WRITE: return {Outcome::kWantWrite, 0};
    case SSL_ERROR_ZERO_RETURN: return {Outcome::kEnd, 0};
    case SSL_ERROR_SYSCALL:
      trouble_ = error != 0 ? words(error) : "the connection was closed";
      return {Outcome::kBroken, 0};
    default: {
      const char* reason = ERR_reason_error_string(ERR_peek_last_error());
      trouble_ = reason != nullptr ? reason : "TLS failed";
      return {Outcome::kBroken, 0};
    }
  }
}

Wire::Step Wire::read_some(char* into, std::size_t size) {
  if (tls_ == nullptr) return plain_step(::recv(socket_, into, size, 0), Outcome::kWantRead);
  ERR_clear_error();
  errno = 0;
  return tls_step(SSL_read(tls_, into, static_cast<int>(std::min<std::size_t>(size, 1 << 30))));
}

Wire::Step Wire::write_some(std::string_view from) {
  if (tls_ == nullptr) return plain_step(::send(socket_, from.data(), from.size(), MSG_NOSIGNAL), Outcome::kWantWrite);
  ERR_clear_error();
  errno = 0;
  return tls_step(SSL_write(tls_, from.data(), static_cast<int>(std::min<std::size_t>(from.size(), 1 << 30))));
}

Status Wire::wait(Outcome wanted, bool also_read, const Patience& patience) const {
  pollfd entry{socket_, 0, 0};
  if (wanted == Outcome::kWantWrite) entry.events |= POLLOUT;
  if (wanted == Outcome::kWantRead || also_read) entry.events |= POLLIN;
  for (;;) {
    RETURN_IF_ERROR(patience.check("waiting for the server"));
    milliseconds time{1000};
    if (patience.cancel != nullptr || patience.abandon != nullptr) time = kGlance;
    if (patience.deadline != kNoDeadline)
      time = std::min(time, std::chrono::ceil<milliseconds>(patience.deadline - std::chrono::steady_clock::now()));
    const int ready = ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(time.count(), 0)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail(Code::kUnavailable, "cannot wait for the server: {}", words(errno));
  }
}

bool Wire::stale() const {
  if (tls_ != nullptr && SSL_has_pending(tls_) == 1) return true;
  pollfd entry{socket_, POLLIN, 0};
  return ::poll(&entry, 1, 0) != 0;
}

}  // namespace chiasm
