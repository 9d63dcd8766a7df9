#include "http/body_decoder.h"

#include <algorithm>

#include "http/text.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxExtension = 1024;
constexpr std::size_t kMaxTrailers = 8192;
constexpr std::uint64_t kMaxReserved = 1ULL << 32;

}  // namespace

BodyDecoder::BodyDecoder(Kind kind, std::uint64_t length, std::uint64_t max_body)
    : kind_(kind), left_(kind == Kind::kLength ? length : 0), allowed_(max_body) {
  if (kind == Kind::kLength && length > max_body) verdict_ = Verdict::kTooLarge;
  if (kind == Kind::kLength && length == 0) verdict_ = Verdict::kDone;
}

BodyDecoder::Verdict BodyDecoder::feed(std::string_view& bytes, std::string& body) {
  if (verdict_ != Verdict::kMore || bytes.empty()) return verdict_;
  switch (kind_) {
    case Kind::kLength:
      // Only now: who announces a body and sends nothing costs nothing.
      if (body.empty()) body.reserve(static_cast<std::size_t>(std::min(left_, kMaxReserved)));
      take_data(bytes, body);
      if (left_ == 0) verdict_ = Verdict::kDone;
      break;
    case Kind::kChunked: feed_chunks(bytes, body); break;
    case Kind::kToEnd:
      if (bytes.size() > allowed_) return verdict_ = Verdict::kTooLarge;
      allowed_ -= bytes.size();
      body.append(bytes);
      bytes = {};
      break;
  }
  return verdict_;
}

void BodyDecoder::take_data(std::string_view& bytes, std::string& body) {
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size()));
  body.append(bytes.substr(0, count));
  bytes.remove_prefix(count);
  left_ -= count;
}

void BodyDecoder::feed_chunks(std::string_view& bytes, std::string& body) {
  while (!bytes.empty() && verdict_ == Verdict::kMore) {
    if (at_ == At::kData) {
      take_data(bytes, body);
      if (left_ == 0) at_ = At::kDataReturn;
    } else {
      take_framing(bytes.front());
      bytes.remove_prefix(1);
    }
  }
}

void BodyDecoder::take_framing(char c) {
  const auto expect = [&](char expected, At then) {
    if (c != expected) verdict_ = Verdict::kMalformed;
    at_ = then;
  };
  switch (at_) {
    case At::kSize:
      if (const int digit = hex_digit(c); digit >= 0) {
        if (++digits_ > 15) verdict_ = Verdict::kMalformed;
        left_ = left_ * 16 + static_cast<std::uint64_t>(digit);
      } else if (digits_ == 0 || (c != '\r' && c != ';' && c != ' ' && c != '\t')) {
        verdict_ = Verdict::kMalformed;
      } else {
        at_ = c == '\r' ? At::kSizeEnd : At::kExtension;
        overhead_ = 0;
      }
      break;
    case At::kExtension:
      if (c == '\r')
        at_ = At::kSizeEnd;
      else if (is_control(c) || ++overhead_ > kMaxExtension)
        verdict_ = Verdict::kMalformed;
      break;
    case At::kSizeEnd:
      expect('\n', At::kData);
      begin_chunk();
      break;
    case At::kData: break;
    case At::kDataReturn: expect('\r', At::kDataEnd); break;
    case At::kDataEnd:
      expect('\n', At::kSize);
      digits_ = 0;
      break;
    case At::kTrailer:
      if (c == '\r')
        at_ = At::kTrailerEnd;
      else if (is_control(c) || ++overhead_ > kMaxTrailers)
        verdict_ = Verdict::kMalformed;
      else
        ++line_;
      break;
    case At::kTrailerEnd:
      expect('\n', At::kTrailer);
      if (verdict_ == Verdict::kMore && line_ == 0) verdict_ = Verdict::kDone;
      line_ = 0;
      break;
  }
}

void BodyDecoder::begin_chunk() {
  if (verdict_ != Verdict::kMore) return;
  if (left_ > allowed_) {
    verdict_ = Verdict::kTooLarge;
  } else if (left_ == 0) {
    at_ = At::kTrailer;
    overhead_ = line_ = 0;
  } else {
    allowed_ -= left_;
  }
}

}  // namespace chiasm
