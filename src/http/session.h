// One connection of the server: reads requests one after another, hands each to a lane, sends the answer.
//
// While a request is answered a read stays pending, so that a client that leaves is noticed at once; what it brings
// belongs to the next request (up to 64 KiB of it, then the client is only looked at again when it has its answer). End
// of file counts as leaving, also when the client only shut down its sending side: the two look the same from here, and
// a client that still wants its answer has no reason to do that.
// Thread contract: start() and shut() from any thread, the rest runs on the connection's executor.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/steady_timer.hpp>

#include "http/answer.h"
#include "http/request_parser.h"
#include "http/server_core.h"
#include "http/transport.h"

namespace chiasm {

class Session : public std::enable_shared_from_this<Session> {
 public:
  // `refused`: there are too many connections; it is told so and ended.
  Session(std::shared_ptr<ServerCore> core, std::unique_ptr<Transport> transport, std::string peer, bool refused);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void start();
  void shut();  // for good, the server ends; a running handler sees it as a client that has gone

 private:
  using Error = Transport::Error;
  enum class State : std::uint8_t { kHandshake, kHead, kBody, kAnswer, kLinger, kClosed };

  void begin();
  void next_request();
  void read_more();
  void on_read(Error error, std::size_t count);
  void on_bytes();
  void on_head(RequestHead head);
  void answer_head();
  std::optional<HttpResponse> ask_gate();
  bool hold_bytes(std::uint64_t count);
  void on_body();
  void dispatch();
  void handle(const std::shared_ptr<Answer>& answer);
  void refuse(int status, std::string_view message) { reply(core_->error(status, message), true); }
  void reply(HttpResponse response, bool close);
  std::shared_ptr<Answer> make_answer(bool keep_alive);
  void pump();
  void on_written(Error error, std::size_t count);
  void check_finished();
  void report();
  void release();
  void client_left();
  void linger();
  void discard();
  void close();
  void arm(std::chrono::milliseconds time);
  void disarm();
  void on_timeout();

  const std::shared_ptr<ServerCore> core_;
  const std::unique_ptr<Transport> transport_;
  boost::asio::steady_timer timer_;
  std::uint64_t timer_turn_ = 0;  // a wait that was replaced may still call back
  const std::string peer_;
  const bool refused_;
  bool counted_ = true;  // in the core's number of connections
  std::string client_name_;
  State state_ = State::kHandshake;

  std::vector<char> chunk_;  // a pending read writes here
  bool reading_ = false;
  std::string in_;  // read, not used yet
  std::optional<RequestParser> parser_;
  bool head_began_ = false;

  // The request being read or answered.
  RequestHead head_;
  std::optional<BodyDecoder> decoder_;
  std::chrono::steady_clock::time_point body_began_;
  const Route* route_ = nullptr;
  std::chrono::steady_clock::time_point arrived_;
  std::uint64_t request_bytes_ = 0, response_bytes_ = 0;
  std::uint64_t held_bytes_ = 0;
  bool permit_ = false;
  bool body_unread_ = false;  // the answer came before the body: the connection cannot go on
  std::shared_ptr<Answer> answer_;
  bool handler_returned_ = false;
  bool left_ = false;       // of the client, or cut off
  bool cut_ = false;        // by shut()
  bool delivered_ = false;  // it left with the whole answer

  std::string out_;
  std::size_t out_sent_ = 0;
  bool interim_ = false;  // it is "100 Continue", no part of the answer
  bool writing_ = false;
  std::size_t discarded_ = 0;
};

}  // namespace chiasm
