#include "http/client_tls.h"

#include <array>
#include <cerrno>
#include <cstdint>

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

namespace chiasm {
namespace {

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL: a peer that has closed would end the process with SIGPIPE.

int socket_of(BIO* bio) { return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio))); }

bool is_passing(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

int write_socket(BIO* bio, const char* bytes, int size) {
  BIO_clear_retry_flags(bio);
  const auto sent = ::send(socket_of(bio), bytes, static_cast<std::size_t>(size), MSG_NOSIGNAL);
  if (sent < 0 && is_passing(errno)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int read_socket(BIO* bio, char* into, int size) {
  BIO_clear_retry_flags(bio);
  const auto got = ::recv(socket_of(bio), into, static_cast<std::size_t>(size), 0);
  if (got < 0 && is_passing(errno)) BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

long control_socket(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

int no_password(char*, int, int, void*) { return 0; }

Status refused(const std::filesystem::path& file, std::string_view expected) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  Status status = fail(Code::kInvalidArgument, "{}: expected {}: {}", file.string(), expected,
                       reason != nullptr ? reason : "not readable");
  ERR_clear_error();
  return status;
}

Status load_files(SSL_CTX* context, const ClientOptions& options) {
  if (!options.ca_file.empty() && SSL_CTX_load_verify_locations(context, options.ca_file.c_str(), nullptr) != 1)
    return refused(options.ca_file, "certificates of authorities in PEM");
  if (options.certificate.empty() != options.key.empty())
    return fail(Code::kInvalidArgument, "a client certificate and its key must be given together");
  if (options.certificate.empty()) return {};
  if (SSL_CTX_use_certificate_chain_file(context, options.certificate.c_str()) != 1)
    return refused(options.certificate, "a certificate in PEM");
  if (SSL_CTX_use_PrivateKey_file(context, options.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context) != 1)
    return refused(options.key, "the certificate's private key in PEM, without a password");
  return {};
}

}  // namespace

Result<std::unique_ptr<ClientTls>> ClientTls::create(const ClientOptions& options) {
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without signals");
  std::unique_ptr<ClientTls> tls(new ClientTls(context, method));
  if (context == nullptr || method == nullptr) return fail(Code::kResourceExhausted, "OpenSSL has no memory");
  BIO_meth_set_write(method, write_socket);
  BIO_meth_set_read(method, read_socket);
  BIO_meth_set_ctrl(method, control_socket);
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_default_passwd_cb(context, no_password);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  RETURN_IF_ERROR(load_files(context, options));
  ERR_clear_error();
  return tls;
}

ClientTls::~ClientTls() {
  SSL_CTX_free(context_);
  BIO_meth_free(method_);
}

SSL* ClientTls::open(int socket, const std::string& host) const {
  // Reading a few hundred certificates takes a while, which clients that only speak plain HTTP need not spend. A system
  // without any is one that trusts only ca_file.
  std::call_once(system_, [this] { SSL_CTX_set_default_verify_paths(context_); });
  SSL* ssl = SSL_new(context_);
  BIO* bio = BIO_new(method_);
  if (ssl == nullptr || bio == nullptr) {
    SSL_free(ssl);
    BIO_free(bio);
    return nullptr;
  }
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket)));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  std::array<std::uint8_t, 16> ignored{};
  const bool is_address = ::inet_pton(AF_INET, host.c_str(), ignored.data()) == 1 ||
                          ::inet_pton(AF_INET6, host.c_str(), ignored.data()) == 1;
  bool set = false;
  if (is_address) {
    set = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
  } else {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    set = SSL_set1_host(ssl, host.c_str()) == 1 && SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
  }
  if (!set) {  // unchecked it must not go on
    SSL_free(ssl);
    return nullptr;
  }
  SSL_set_connect_state(ssl);
  return ssl;
}

}  // namespace chiasm
