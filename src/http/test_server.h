// For tests of servers and clients: a client that sends exactly the bytes it is given to a port of this machine, a
// server that follows a script, and a flag to wait for.
//
// Thread contract: a RawClient belongs to one thread, a Flag to all.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/message.h"

namespace chiasm {

// Long enough for a loaded machine under a sanitizer; only a test that fails waits for so long.
inline constexpr std::chrono::seconds kTestPatience{60};

class Flag {
 public:
  void raise() {
    const std::lock_guard lock(mutex_);
    raised_ = true;
    changed_.notify_all();
  }
  bool wait(std::chrono::milliseconds patience = kTestPatience) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return raised_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool raised_ = false;
};

class RawClient {
 public:
  explicit RawClient(std::uint16_t port, int receive_buffer = 0) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const int on = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      ADD_FAILURE() << "cannot connect to port " << port;
  }
  // The server's end of a connection.
  struct Accepted {
    int socket;
  };
  explicit RawClient(Accepted accepted) : socket_(accepted.socket) {}
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False when the server no longer takes anything.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void shut_sending() const { ::shutdown(socket_, SHUT_WR); }
  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  // Closes so that the other side sees a reset.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

  // One more piece into the buffer; false at the end of the connection or of patience.
  bool read_some(std::chrono::milliseconds patience = kTestPatience) {
    pollfd entry{socket_, POLLIN, 0};
    if (::poll(&entry, 1, static_cast<int>(patience.count())) <= 0) {
      timed_out_ = true;
      return false;
    }
    char piece[16 << 10];
    const auto got = ::recv(socket_, piece, sizeof piece, 0);
    if (got < 0) reset_ = true;
    if (got <= 0) return false;
    buffer_.append(piece, static_cast<std::size_t>(got));
    return true;
  }

  // Everything until the server closes.
  std::string read_all() {
    while (read_some()) {
    }
    EXPECT_FALSE(timed_out_) << "the server neither closed the connection nor said anything";
    return std::exchange(buffer_, {});
  }

  // Up to and with `mark`; what there was when the connection ended before it.
  std::string read_until(std::string_view mark) {
    std::size_t at = buffer_.find(mark);
    while (at == std::string::npos && read_some()) at = buffer_.find(mark);
    EXPECT_FALSE(timed_out_) << "'" << mark << "' did not come; so far: " << buffer_;
    return take(at == std::string::npos ? buffer_.size() : at + mark.size());
  }

  // The next answer, by Content-Length or in chunks; status 0 when there is none or it is cut short.
  HttpResponse read_answer(bool to_head = false) {
    HttpResponse answer;
    answer.status = 0;
    const std::string head = read_until("\r\n\r\n");
    if (!head.starts_with("HTTP/1.1 ") || !head.ends_with("\r\n\r\n")) return answer;
    const int status = std::atoi(head.c_str() + 9);
    for (std::size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
      const std::size_t end = head.find("\r\n", at), colon = head.find(": ", at);
      answer.headers.add(head.substr(at, colon - at), head.substr(colon + 2, end - colon - 2));
      at = end + 2;
    }
    if (to_head || status < 200 || status == 204 || status == 304) {
      answer.status = status;
    } else if (const auto length = answer.headers.find("Content-Length")) {
      const auto size = std::strtoull(std::string(*length).c_str(), nullptr, 10);
      while (buffer_.size() < size && read_some()) {
      }
      if (buffer_.size() >= size) answer.status = status;
      answer.body = take(std::min<std::size_t>(size, buffer_.size()));
    } else if (answer.headers.find("Transfer-Encoding")) {
      for (;;) {
        const std::string line = read_until("\r\n");
        if (!line.ends_with("\r\n")) return answer;
        const std::size_t size = std::strtoull(line.c_str(), nullptr, 16);
        while (buffer_.size() < size + 2 && read_some()) {
        }
        if (buffer_.size() < size + 2) return answer;
        answer.body += take(size);
        take(2);
        if (size > 0) continue;
        answer.status = status;
        return answer;
      }
    }
    return answer;
  }

  // Sends and reads one answer.
  HttpResponse ask(std::string_view bytes) {
    send(bytes);
    return read_answer();
  }

  // Whether the server closes without another byte.
  bool sees_end() {
    const bool more = read_some();
    return !more && !timed_out_ && !reset_ && buffer_.empty();
  }
  bool was_reset() const { return reset_; }

 private:
  std::string take(std::size_t count) {
    std::string out = buffer_.substr(0, count);
    buffer_.erase(0, count);
    return out;
  }

  int socket_;
  std::string buffer_;
  bool timed_out_ = false, reset_ = false;
};

// Runs a script over each connection, one connection after another; when the script returns, the connection is closed.
class ScriptServer {
 public:
  using Script = std::function<void(RawClient& peer, int connection)>;

  explicit ScriptServer(Script script) : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 || ::listen(listener_, 16) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      ADD_FAILURE() << "cannot listen";
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, script = std::move(script)] {
      for (;;) {
        const int socket = ::accept(listener_, nullptr, nullptr);
        if (socket < 0) return;
        RawClient peer(RawClient::Accepted{socket});
        script(peer, connections_++);
      }
    });
  }
  ~ScriptServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  ScriptServer(const ScriptServer&) = delete;
  ScriptServer& operator=(const ScriptServer&) = delete;

  std::uint16_t port() const { return port_; }
  int connections() const { return connections_; }

 private:
  int listener_;
  std::uint16_t port_ = 0;
  std::atomic<int> connections_ = 0;
  std::thread thread_;
};

}  // namespace chiasm
