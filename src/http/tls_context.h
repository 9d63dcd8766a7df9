// A server's TLS: the context out of its files, read once, and connections that use it.
//
// Thread contract: pure functions; a context serves connections of all threads. Only .cpp files of this folder may
// include this.
#pragma once

#include <memory>

#include <boost/asio/ssl/context.hpp>

#include "base/result.h"
#include "http/server.h"
#include "http/transport.h"

namespace chiasm {

// TLS 1.2 and later. Errors name the file and what it should have held.
Result<std::unique_ptr<boost::asio::ssl::context>> make_tls_context(const ServerTls& tls);

std::unique_ptr<Transport> make_tls_transport(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& context);

}  // namespace chiasm
