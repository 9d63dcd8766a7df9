// The head of a request out of bytes, and how its body comes: the server's parser, without a socket.
//
// Strict where readings differ between implementations, since that is how requests are smuggled past a proxy (RFC 9112,
// section 11.2). Thread contract: an object belongs to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "http/body_decoder.h"
#include "http/head_scanner.h"
#include "http/message.h"

namespace chiasm {

struct Refusal {
  int status = 400;
  std::string message;
};

struct RequestHead {
  HttpRequest request;                // method, path, query, headers
  std::vector<std::string> segments;  // of the path, decoded
  std::size_t bytes = 0;              // of the head, with its empty line
  bool http_1_0 = false;
  bool keep_alive = true;
  bool expects_continue = false;
  bool chunked = false;
  std::uint64_t content_length = 0;

  bool has_body() const { return chunked || content_length > 0; }
  BodyDecoder body_decoder(std::uint64_t max_body) const {
    return {chunked ? BodyDecoder::Kind::kChunked : BodyDecoder::Kind::kLength, content_length, max_body};
  }
};

class RequestParser {
 public:
  RequestParser(std::uint32_t max_header, int max_headers) : max_header_(max_header), max_headers_(max_headers) {}

  // `bytes`: all of this request that have come. Nothing when more are needed.
  tl::expected<std::optional<RequestHead>, Refusal> head(std::string_view bytes);

 private:
  std::uint32_t max_header_;
  int max_headers_;
  HeadScanner scanner_;
};

}  // namespace chiasm
