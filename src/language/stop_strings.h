// Finds the end of an answer in its text: the first place where one of several strings is complete.
//
// "First" is where a stop string ends first; of several that end there, the longest. So the result does not depend on
// how the text was cut into pieces. Thread contract: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

// Each one not empty, UTF-8 and at most 4096 bytes long, at most 64 of them. kInvalidArgument: "stop: ...".
Status check_stop_strings(const std::vector<std::string>& stop);

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stop);

  // The text that `piece` makes safe to show: all but an end that may be the beginning of a stop string. Whole UTF-8
  // characters where the pieces are. Nothing comes any more after a match.
  std::string push(std::string_view piece);
  // What was held back, when the answer ended otherwise.
  std::string finish();

  const std::optional<std::string>& matched() const { return matched_; }

 private:
  // Knuth, Morris, Pratt 1977: how much of the string the text so far ends with, and where to go on from there.
  struct Pattern {
    std::string text;
    std::vector<std::size_t> fallback;  // [i]: the longest proper border of the first i + 1 bytes
    std::size_t length = 0;
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace chiasm
