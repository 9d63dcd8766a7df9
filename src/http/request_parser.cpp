#include "http/request_parser.h"

#include <stdexcept>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "http/target.h"
#include "http/text.h"

namespace chiasm {
namespace {

namespace beast_http = boost::beast::http;
using Parser = beast_http::request_parser<beast_http::empty_body>;

tl::unexpected<Refusal> refuse(int status, std::string message) {
  return tl::unexpected<Refusal>(Refusal{status, std::move(message)});
}

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

// Header by header, what decides where the request ends and whom it is for.
tl::expected<void, Refusal> read_framing(const Headers& headers, RequestHead& head) {
  std::optional<std::uint64_t> length;
  int hosts = 0;
  for (const auto& [name, value] : headers.all()) {
    if (same_word(name, "content-length")) {
      const auto given = decimal(value);
      if (!given) return refuse(400, "Content-Length must be a number");
      if (length && *length != *given) return refuse(400, "the request has two Content-Lengths");
      length = given;
    } else if (same_word(name, "transfer-encoding")) {
      if (head.chunked || !same_word(value, "chunked"))
        return refuse(400, "Transfer-Encoding must be 'chunked' and nothing else");
      head.chunked = true;
    } else if (same_word(name, "host")) {
      ++hosts;
    } else if (same_word(name, "expect")) {
      if (!same_word(value, "100-continue")) return refuse(417, "of expectations only '100-continue' is known");
      head.expects_continue = !head.http_1_0;
    }
  }
  if (head.chunked && length) return refuse(400, "the request has both Content-Length and Transfer-Encoding");
  if (head.chunked && head.http_1_0) return refuse(400, "HTTP/1.0 has no Transfer-Encoding");
  if (hosts > 1 || (hosts == 0 && !head.http_1_0)) return refuse(400, "the request must have one Host header");
  head.content_length = length.value_or(0);
  return {};
}

}  // namespace

tl::expected<std::optional<RequestHead>, Refusal> RequestParser::head(std::string_view bytes) {
  // Some clients end a body with a line end that it does not count (RFC 9112, section 2.2).
  const std::size_t skipped = bytes.starts_with("\r\n") ? 2 : 0;
  if (bytes == "\r") return std::nullopt;
  bytes.remove_prefix(skipped);
  // Something else than HTTP (TLS on a plain port, say) is told at once instead of after the timeout.
  if (!bytes.empty() && !is_token_char(bytes.front())) return refuse(400, "this is not an HTTP/1.1 request");
  switch (scanner_.scan(bytes, max_header_)) {
    case HeadScanner::Found::kMore: return std::nullopt;
    case HeadScanner::Found::kHead: break;
    case HeadScanner::Found::kBadLine: return refuse(400, "a line of the request's head is malformed");
    case HeadScanner::Found::kTooLong:
      if (scanner_.lines() == 0) return refuse(414, "the request line is too long");
      return refuse(431, "the request's headers are too large");
  }
  if (scanner_.lines() - 2 > max_headers_) return refuse(431, "the request has too many headers");

  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(scanner_.size()) + 1);
  parser.skip(true);  // the body is not its business
  boost::beast::error_code error;
  try {
    parser.put({bytes.data(), scanner_.size()}, error);
  } catch (const std::length_error&) {  // a field of more than 64 KiB
    return refuse(431, "a header of the request is too large");
  }
  if (error || !parser.is_header_done()) return refuse(400, "the request's head is malformed");

  const auto& message = parser.get();
  RequestHead head;
  head.bytes = skipped + scanner_.size();
  head.http_1_0 = message.version() == 10;
  head.keep_alive = message.keep_alive();
  head.request.method = view(message.method_string());
  for (const auto& field : message)
    head.request.headers.add(std::string(view(field.name_string())), std::string(view(field.value())));
  if (auto framing = read_framing(head.request.headers, head); !framing)
    return tl::unexpected<Refusal>(std::move(framing).error());

  auto target = parse_target(view(message.target()));
  if (!target) return refuse(400, std::move(target).error().message);
  head.request.path = std::move(target->path);
  head.request.query = std::move(target->query);
  head.segments = std::move(target->segments);
  return head;
}

}  // namespace chiasm
