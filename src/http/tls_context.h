// A server's TLS context out of its files, read once.
//
// Thread contract: a pure function. Only .cpp files of this folder may include this.
#pragma once

#include <memory>

#include <boost/asio/ssl/context.hpp>

#include "base/result.h"
#include "http/server.h"

namespace chiasm {

// TLS 1.2 and later. Errors name the file and what it should have held.
Result<std::unique_ptr<boost::asio::ssl::context>> make_tls_context(const ServerTls& tls);

}  // namespace chiasm
