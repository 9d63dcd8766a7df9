// The Qwen2 split pattern, by hand: cuts text into the pieces that BPE never merges across.
//
// The pattern is a regular expression in tokenizer.json; every Qwen2 and Qwen2.5 checkpoint has the same one. Written
// by hand it takes linear time on any input and agrees with Hugging Face's engine (Oniguruma) where PCRE2 differs
// (U+180E is no white space there). Its test compares it with PCRE2. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace chiasm {

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
std::string_view qwen2_pattern();

// The length in bytes of the pattern's match at the start of `text`, which is well-formed UTF-8 and not empty. The
// pattern matches something everywhere, so pieces follow each other without gaps. The end of `text` is the end of the
// whole.
std::size_t qwen2_piece(std::string_view text);

}  // namespace chiasm
