// A server's side of one connection, plain or TLS, behind one face, so that the session is compiled once.
//
// Thread contract: everything on the executor of the socket, where the callbacks run too; one read and one write at a
// time. Only .cpp files of this folder may include this.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>

namespace chiasm {

class Transport {
 public:
  using Error = boost::system::error_code;
  using Moved = std::function<void(Error, std::size_t)>;

  virtual ~Transport() = default;
  virtual boost::asio::any_io_executor executor() = 0;
  virtual void handshake(std::function<void(Error)> done) = 0;
  virtual void read_some(boost::asio::mutable_buffer into, Moved done) = 0;
  virtual void write_some(boost::asio::const_buffer from, Moved done) = 0;
  // Tells the peer that nothing more is written; `done` when it has been told.
  virtual void finish(std::function<void()> done) = 0;
  // Reads to throw away, below TLS; may run beside a read_some whose outcome matters no more.
  virtual void discard_some(boost::asio::mutable_buffer into, Moved done) = 0;
  // Ends all that is under way.
  virtual void close() = 0;
  virtual std::string client_name() = 0;  // of a verified certificate, after the handshake
};

std::unique_ptr<Transport> make_plain_transport(boost::asio::ip::tcp::socket socket);

}  // namespace chiasm
