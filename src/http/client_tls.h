// Whom a client trusts and what it shows: the TLS side of its connections.
//
// Thread contract: any thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include <openssl/ssl.h>

#include "base/result.h"
#include "http/client.h"

namespace chiasm {

class ClientTls {
 public:
  // kInvalidArgument for files that do not hold what they should.
  static Result<std::unique_ptr<ClientTls>> create(const ClientOptions& options);
  ~ClientTls();
  ClientTls(const ClientTls&) = delete;
  ClientTls& operator=(const ClientTls&) = delete;

  // TLS over the connected socket, which stays the caller's; the peer must show a certificate for `host`, a name or an
  // address. Null when there is no memory.
  SSL* open(int socket, const std::string& host) const;

 private:
  ClientTls(SSL_CTX* context, BIO_METHOD* method) : context_(context), method_(method) {}

  SSL_CTX* context_;
  BIO_METHOD* method_;
  mutable std::once_flag system_;  // its authorities have been read
};

}  // namespace chiasm
