// A response out of bytes: the client's parser, without a socket.
//
// Thread contract: an object belongs to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/body_decoder.h"
#include "http/head_scanner.h"
#include "http/message.h"

namespace chiasm {

class ResponseReader {
 public:
  // The answer to HEAD has no body, whatever its headers say.
  ResponseReader(bool to_head, std::uint64_t max_body) : to_head_(to_head), max_body_(max_body) {}

  // Errors: kDataLoss for what is not HTTP, kResourceExhausted for headers beyond 64 KiB or a body beyond `max_body`.
  Status feed(std::string_view bytes);
  // The connection ended; kUnavailable when that is in the middle.
  Status end();

  bool began() const { return began_; }                 // a byte has come
  bool head_done() const { return body_.has_value(); }  // a final one: interim responses (1xx) are passed over
  bool done() const { return done_; }
  bool keep_alive() const { return done_ && keep_alive_ && !surplus_; }
  HttpResponse take() { return std::move(response_); }

 private:
  Status find_head();
  Status parse_head();

  const bool to_head_;
  const std::uint64_t max_body_;
  HeadScanner scanner_;
  std::string head_;  // its bytes so far
  int interim_ = 0;
  std::optional<BodyDecoder> body_;
  bool began_ = false, done_ = false, keep_alive_ = false;
  bool surplus_ = false;  // something came beyond the end
  HttpResponse response_;
};

}  // namespace chiasm
