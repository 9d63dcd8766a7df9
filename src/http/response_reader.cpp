#include "http/response_reader.h"

#include <stdexcept>
#include <utility>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "http/text.h"

namespace chiasm {
namespace {

namespace beast_http = boost::beast::http;
using Parser = beast_http::response_parser<beast_http::empty_body>;

constexpr std::size_t kMaxHead = 64 << 10;
constexpr int kMaxInterim = 16;
constexpr std::string_view kStart = "HTTP/1.";

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

Status ResponseReader::feed(std::string_view bytes) {
  began_ = began_ || !bytes.empty();
  std::string after_head;
  if (!head_done()) {
    head_.append(bytes);
    // What speaks first and something else would otherwise be waited for until it ends a line.
    if (!head_.starts_with(kStart.substr(0, head_.size())))
      return fail(Code::kDataLoss, "the server's answer is not HTTP/1.1");
    RETURN_IF_ERROR(find_head());
    if (!head_done()) return {};
    after_head = std::exchange(head_, {});
    bytes = after_head;
  }
  if (!done_) {
    switch (body_->feed(bytes, response_.body)) {
      case BodyDecoder::Verdict::kMore: break;
      case BodyDecoder::Verdict::kDone: done_ = true; break;
      case BodyDecoder::Verdict::kMalformed:
        return fail(Code::kDataLoss, "the chunks of the server's answer are malformed");
      case BodyDecoder::Verdict::kTooLarge:
        return fail(Code::kResourceExhausted, "the server's answer has more than {} bytes", max_body_);
    }
  }
  surplus_ = surplus_ || !bytes.empty();
  return {};
}

Status ResponseReader::find_head() {
  while (!head_done()) {
    switch (scanner_.scan(head_, kMaxHead)) {
      case HeadScanner::Found::kMore: return {};
      case HeadScanner::Found::kHead: RETURN_IF_ERROR(parse_head()); break;
      case HeadScanner::Found::kBadLine: return fail(Code::kDataLoss, "the server's answer is not HTTP/1.1");
      case HeadScanner::Found::kTooLong:
        return fail(Code::kResourceExhausted, "the server's headers are larger than {} bytes", kMaxHead);
    }
  }
  return {};
}

Status ResponseReader::end() {
  if (done_) return {};
  if (!head_done() || body_->end() != BodyDecoder::Verdict::kDone)
    return fail(Code::kUnavailable, "the connection ended in the middle of the server's answer");
  done_ = true;
  return {};
}

Status ResponseReader::parse_head() {
  const auto malformed = [] { return fail(Code::kDataLoss, "the server's answer is not HTTP/1.1"); };
  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(scanner_.size()) + 1);
  parser.skip(true);
  boost::beast::error_code error;
  try {
    parser.put({head_.data(), scanner_.size()}, error);
  } catch (const std::length_error&) {
    return fail(Code::kResourceExhausted, "a header of the server's answer is too large");
  }
  if (error || !parser.is_header_done()) return malformed();
  head_.erase(0, scanner_.size());
  scanner_ = {};

  const auto& message = parser.get();
  const int status = static_cast<int>(message.result_int());
  if (status < 200) {
    if (status == 101 || status < 100 || ++interim_ > kMaxInterim) return malformed();
    return {};
  }
  response_.status = status;
  std::optional<std::uint64_t> length;
  bool chunked = false;
  for (const auto& field : message) {
    const std::string_view name = view(field.name_string()), value = view(field.value());
    if (same_word(name, "content-length")) {
      const auto given = decimal(value);
      if (!given || (length && *length != *given)) return malformed();
      length = given;
    } else if (same_word(name, "transfer-encoding")) {
      if (chunked || !same_word(value, "chunked")) return malformed();
      chunked = true;
    }
    response_.headers.add(std::string(name), std::string(value));
  }
  if (chunked && length) return malformed();
  const bool bodiless = to_head_ || status == 204 || status == 304;
  const bool to_end = !bodiless && !chunked && !length;
  keep_alive_ = !to_end && message.keep_alive();
  if (bodiless)
    body_.emplace(BodyDecoder::Kind::kLength, 0, max_body_);
  else if (to_end)
    body_.emplace(BodyDecoder::Kind::kToEnd, 0, max_body_);
  else
    body_.emplace(chunked ? BodyDecoder::Kind::kChunked : BodyDecoder::Kind::kLength, length.value_or(0), max_body_);
  return {};
}

}  // namespace chiasm
