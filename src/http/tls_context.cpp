#include "http/tls_context.h"

#include <string>
#include <utility>

#include <openssl/err.h>
#include <openssl/ssl.h>

namespace chiasm {
namespace {

constexpr unsigned char kSessionName[] = "chiasm";

// A key that needs a password would ask for it on the terminal.
int no_password(char*, int, int, void*) { return 0; }

Status refused(const std::filesystem::path& file, std::string_view expected) {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(code);
  Status status = fail(Code::kInvalidArgument, "{}: expected {}: {}", file.string(), expected,
                       reason != nullptr ? reason : "not readable");
  ERR_clear_error();
  return status;
}

}  // namespace

Result<std::unique_ptr<boost::asio::ssl::context>> make_tls_context(const ServerTls& tls) {
  auto made = std::make_unique<boost::asio::ssl::context>(boost::asio::ssl::context::tls_server);
  SSL_CTX* context = made->native_handle();
  ERR_clear_error();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_default_passwd_cb(context, no_password);
  if (SSL_CTX_use_certificate_chain_file(context, tls.certificate.c_str()) != 1)
    RETURN_IF_ERROR(refused(tls.certificate, "a certificate in PEM"));
  if (SSL_CTX_use_PrivateKey_file(context, tls.key.c_str(), SSL_FILETYPE_PEM) != 1)
    RETURN_IF_ERROR(refused(tls.key, "the certificate's private key in PEM, without a password"));
  if (SSL_CTX_check_private_key(context) != 1) RETURN_IF_ERROR(refused(tls.key, "the certificate's private key"));
  if (!tls.client_ca.empty()) {
    if (SSL_CTX_load_verify_locations(context, tls.client_ca.c_str(), nullptr) != 1)
      RETURN_IF_ERROR(refused(tls.client_ca, "certificates of authorities in PEM"));
    SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(tls.client_ca.c_str()));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    // Without a name OpenSSL does not resume sessions that were verified.
    SSL_CTX_set_session_id_context(context, kSessionName, sizeof kSessionName - 1);
  }
  return made;
}

}  // namespace chiasm
