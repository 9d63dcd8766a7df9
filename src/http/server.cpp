#include "http/server.h"

#include <thread>
#include <utility>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <fcntl.h>
#include <unistd.h>

#include "http/client.h"
#include "http/server_core.h"
#include "http/session.h"
#include "http/tls_context.h"

namespace chiasm {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Error = boost::system::error_code;

constexpr int kIoThreads = 2;
constexpr int kMaxRefusals =
    256;  // connections at once that are told that there are too many, beyond that they are closed
constexpr std::chrono::milliseconds kAcceptPause{50};

int open_spare() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

class BeastServer final : public HttpServer {
 public:
  BeastServer(ServerOptions options, std::vector<Route> routes, std::unique_ptr<asio::ssl::context> tls)
      : tls_(std::move(tls)),
        core_(std::make_shared<ServerCore>(std::move(options), std::move(routes))),
        guard_(asio::make_work_guard(io_)),
        acceptor_(asio::make_strand(io_)),
        pause_(acceptor_.get_executor()),
        spare_(open_spare()) {}
  ~BeastServer() override {
    stop();
    if (spare_ >= 0) ::close(spare_);
  }
  BeastServer(const BeastServer&) = delete;
  BeastServer& operator=(const BeastServer&) = delete;

  Status listen();

  std::uint16_t port() const override { return port_; }
  int running() const override { return core_->work.taken(); }
  bool drain(Deadline deadline) override {
    core_->draining = true;
    return core_->work.wait_idle(deadline);
  }
  void stop() override;

 private:
  Status bind(const std::string& address);
  void accept();
  void on_accept(Error error, tcp::socket socket);
  void make_room();
  void run_io();

  asio::io_context io_{kIoThreads};
  const std::unique_ptr<asio::ssl::context> tls_;
  const std::shared_ptr<ServerCore> core_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  int spare_;  // a descriptor to give up when there are none left
  std::uint16_t port_ = 0;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

Status BeastServer::bind(const std::string& address) {
  Error error;
  const auto parsed = asio::ip::make_address(address, error);
  if (error) return fail(Code::kInvalidArgument, "'{}' is no address to listen at", address);
  const tcp::endpoint endpoint(parsed, core_->options.port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && parsed.is_v6()) acceptor_.set_option(asio::ip::v6_only(!parsed.is_unspecified()), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) port_ = acceptor_.local_endpoint(error).port();
  if (error) {
    Error ignored;
    acceptor_.close(ignored);
    return fail(Code::kUnavailable, "cannot listen at {} port {}: {}", address, core_->options.port, error.message());
  }
  return {};
}

Status BeastServer::listen() {
  ASSIGN_OR_RETURN(const auto addresses, resolve(core_->options.host));
  Status status;
  for (const std::string& address : addresses)
    if (status = bind(address); status) break;
  RETURN_IF_ERROR(status);
  asio::post(acceptor_.get_executor(), [this] { accept(); });
  for (int i = 0; i < kIoThreads; ++i) threads_.emplace_back([this] { run_io(); });
  return {};
}

void BeastServer::run_io() {
  for (;;) {
    try {
      io_.run();
      return;
    } catch (const std::exception& thrown) {
      core_->failed(thrown.what());
    } catch (...) {
      core_->failed("a connection threw something unknown");
    }
  }
}

void BeastServer::accept() {
  acceptor_.async_accept(asio::make_strand(io_),
                         [this](Error error, tcp::socket socket) { on_accept(error, std::move(socket)); });
}

void BeastServer::on_accept(Error error, tcp::socket socket) {
  if (!acceptor_.is_open()) return;
  if (error == asio::error::no_descriptors || error == Error(ENFILE, boost::system::system_category())) make_room();
  if (error) {
    // Mostly something passing: out of descriptors or memory. A pause, so that it does not become a busy loop.
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](Error) {
      if (acceptor_.is_open()) accept();
    });
    return;
  }
  const bool refused = core_->connections >= core_->options.max_connections;
  if (!refused || core_->refusals < kMaxRefusals) {
    Error ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    socket.set_option(asio::socket_base::keep_alive(true), ignored);
    const auto peer = socket.remote_endpoint(ignored).address().to_string();
    auto transport =
        tls_ != nullptr ? make_tls_transport(std::move(socket), *tls_) : make_plain_transport(std::move(socket));
    std::make_shared<Session>(core_, std::move(transport), peer, refused)->start();
  }
  accept();
}

// Out of descriptors, a connection would wait in the backlog for as long as it lasts: it is taken and closed instead.
void BeastServer::make_room() {
  if (spare_ >= 0) ::close(spare_);
  Error error;
  acceptor_.non_blocking(true, error);
  tcp::socket socket(io_);
  acceptor_.accept(socket, error);
  socket.close(error);
  spare_ = open_spare();
}

void BeastServer::stop() {
  if (std::exchange(stopped_, true)) return;
  asio::post(acceptor_.get_executor(), [this] {
    Error ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  });
  for (const auto& session : core_->stop_sessions()) session->shut();
  core_->work.stop();
  core_->control.stop();
  guard_.reset();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(ServerOptions options, std::vector<Route> routes) {
  for (const Route& route : routes)
    if (!route.pattern.starts_with('/') || route.method.empty() || !route.handler)
      return fail(Code::kInvalidArgument,
                  "a route must have a method, a handler and a pattern that begins with '/', got '{} {}'", route.method,
                  route.pattern);
  if (options.max_connections < 1 || options.max_requests < 1)
    return fail(Code::kInvalidArgument, "a server must take at least one connection and one request, got {} and {}",
                options.max_connections, options.max_requests);
  std::unique_ptr<asio::ssl::context> tls;
  if (options.tls) {
    ASSIGN_OR_RETURN(tls, make_tls_context(*options.tls));
  }
  try {
    auto server = std::make_unique<BeastServer>(std::move(options), std::move(routes), std::move(tls));
    RETURN_IF_ERROR(server->listen());
    return server;
  } catch (const std::exception& error) {  // no descriptors, no threads
    return fail(Code::kUnavailable, "cannot start a server: {}", error.what());
  }
}

}  // namespace chiasm
