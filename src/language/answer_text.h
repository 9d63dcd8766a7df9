// The text of an answer as its tokens come: whole characters, and nothing of a stop string.
//
// Thread contract: one thread; the Tokenizer must outlive it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "language/stop_strings.h"
#include "text/detokenizer.h"

namespace chiasm {

class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stop)
      : detokenizer_(tokenizer), stop_(std::move(stop)) {}

  // The text that may be shown now. Stop strings are not looked for in the text of tokens that are not `armed`.
  std::string push(std::int32_t id, bool armed) { return take(detokenizer_.push(id), armed); }
  // The rest, once no token comes any more.
  std::string finish(bool armed) {
    std::string out = take(detokenizer_.finish(), armed);
    if (!stop_.matched()) out += keep(stop_.finish());
    return out;
  }

  const std::string& text() const { return text_; }  // all that was given out
  const std::optional<std::string>& stopped_by() const { return stop_.matched(); }

 private:
  std::string take(std::string&& piece, bool armed) { return keep(armed ? stop_.push(piece) : std::move(piece)); }
  std::string keep(std::string&& piece) {
    text_ += piece;
    return std::move(piece);
  }

  Detokenizer detokenizer_;
  StopStrings stop_;
  std::string text_;
};

}  // namespace chiasm
