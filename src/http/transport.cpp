#include "http/transport.h"

#include <utility>

#include <boost/asio/ssl/stream.hpp>
#include <openssl/x509.h>

#include "http/tls_context.h"

namespace chiasm {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {}

  asio::any_io_executor executor() override { return socket_.get_executor(); }
  void handshake(std::function<void(Error)> done) override { done({}); }
  void read_some(asio::mutable_buffer into, Moved done) override { socket_.async_read_some(into, std::move(done)); }
  void write_some(asio::const_buffer from, Moved done) override { socket_.async_write_some(from, std::move(done)); }
  void finish(std::function<void()> done) override {
    Error ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    done();
  }
  void discard_some(asio::mutable_buffer into, Moved done) override { read_some(into, std::move(done)); }
  void close() override {
    Error ignored;
    socket_.close(ignored);
  }
  std::string client_name() override { return {}; }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, asio::ssl::context& context) : stream_(std::move(socket), context) {}

  asio::any_io_executor executor() override { return stream_.get_executor(); }
  void handshake(std::function<void(Error)> done) override {
    stream_.async_handshake(asio::ssl::stream_base::server, std::move(done));
  }
  void read_some(asio::mutable_buffer into, Moved done) override { stream_.async_read_some(into, std::move(done)); }
  void write_some(asio::const_buffer from, Moved done) override { stream_.async_write_some(from, std::move(done)); }
  void finish(std::function<void()> done) override {
    // Whether the peer confirms does not matter; the TCP connection is read to its end after this anyway.
    stream_.async_shutdown([this, done = std::move(done)](Error) {
      Error ignored;
      stream_.next_layer().shutdown(tcp::socket::shutdown_send, ignored);
      done();
    });
  }
  void discard_some(asio::mutable_buffer into, Moved done) override {
    stream_.next_layer().async_read_some(into, std::move(done));
  }
  void close() override {
    Error ignored;
    stream_.next_layer().close(ignored);
  }
  std::string client_name() override {
    const SSL* ssl = stream_.native_handle();
    X509* certificate = SSL_get0_peer_certificate(ssl);
    if (certificate == nullptr || SSL_get_verify_result(ssl) != X509_V_OK) return {};
    X509_NAME* subject = X509_get_subject_name(certificate);
    const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return {};
    unsigned char* text = nullptr;
    const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (size < 0) return {};
    std::string name(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
    OPENSSL_free(text);
    // "admin\0.example.org" must not be read as "admin" by anyone.
    return name.find('\0') == std::string::npos ? name : std::string();
  }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<Transport> make_plain_transport(tcp::socket socket) {
  return std::make_unique<PlainTransport>(std::move(socket));
}

std::unique_ptr<Transport> make_tls_transport(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<TlsTransport>(std::move(socket), context);
}

}  // namespace chiasm
