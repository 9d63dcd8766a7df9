// Finds where a message's head ends, as its bytes come.
//
// Thread contract: an object belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chiasm {

class HeadScanner {
 public:
  enum class Found : std::uint8_t { kMore, kHead, kBadLine, kTooLong };

  // `bytes` from the head's first on, all that have come; what was looked at in an earlier call is not looked at again.
  // kBadLine for a line that does not end with CRLF, or one that begins with a blank (it would continue the one
  // before, which servers and proxies read in different ways). kTooLong when `limit` bytes do not hold the head.
  Found scan(std::string_view bytes, std::size_t limit) {
    for (; seen_ < bytes.size() && seen_ < limit; ++seen_) {
      const char c = bytes[seen_];
      if (seen_ == line_ && lines_ > 0 && (c == ' ' || c == '\t')) return Found::kBadLine;
      const bool returned = seen_ > line_ && bytes[seen_ - 1] == '\r';
      if (returned != (c == '\n')) return Found::kBadLine;
      if (c != '\n') continue;
      const bool empty = seen_ == line_ + 1;
      ++lines_;
      line_ = seen_ + 1;
      if (!empty) continue;
      ++seen_;
      return Found::kHead;
    }
    return seen_ == limit ? Found::kTooLong : Found::kMore;
  }

  std::size_t size() const { return seen_; }  // of the head, with its empty line, after kHead
  int lines() const { return lines_; }        // that ended so far

 private:
  std::size_t seen_ = 0, line_ = 0;
  int lines_ = 0;
};

}  // namespace chiasm
