// The body of a message out of the bytes that follow its head: by length, in chunks, or to the end of the connection.
//
// Chunks are taken strictly (RFC 9112, section 7.1): lines end with CRLF, extensions and trailers are passed over
// within bounds. Beast's own reader is not used for this: fed byte by byte, a first chunk of zero runs into one of its
// asserts. Thread contract: an object belongs to one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace chiasm {

class BodyDecoder {
 public:
  enum class Kind : std::uint8_t { kLength, kChunked, kToEnd };
  enum class Verdict : std::uint8_t { kMore, kDone, kMalformed, kTooLarge };

  // `length` is for kLength; more than `max_body` bytes are kTooLarge.
  BodyDecoder(Kind kind, std::uint64_t length, std::uint64_t max_body);

  // Takes bytes from the front of `bytes`, all unless the body ends before, and appends what they carry to `body`.
  Verdict feed(std::string_view& bytes, std::string& body);
  // The connection ended.
  Verdict end() const {
    return kind_ == Kind::kToEnd || verdict_ == Verdict::kDone ? Verdict::kDone : Verdict::kMalformed;
  }

 private:
  enum class At : std::uint8_t { kSize, kExtension, kSizeEnd, kData, kDataReturn, kDataEnd, kTrailer, kTrailerEnd };

  void feed_chunks(std::string_view& bytes, std::string& body);
  void take_data(std::string_view& bytes, std::string& body);
  void take_framing(char c);
  void begin_chunk();

  Kind kind_;
  std::uint64_t left_;     // of the body, or of the chunk
  std::uint64_t allowed_;  // bytes that the body may still take
  At at_ = At::kSize;
  int digits_ = 0;            // of the chunk's size
  std::size_t overhead_ = 0;  // bytes of this extension, or of all trailers
  std::size_t line_ = 0;      // bytes of this trailer line
  Verdict verdict_ = Verdict::kMore;
};

}  // namespace chiasm
