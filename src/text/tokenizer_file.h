// tokenizer.json to the parts of a tokenizer, or an error that names the file and the field.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/bpe.h"
#include "text/vocabulary.h"

namespace chiasm {

struct TokenizerParts {
  Vocabulary vocabulary;
  Bpe bpe;
  std::vector<std::pair<std::string, std::int32_t>> added;  // content and id, sorted by content
  bool nfc = false;
  bool ignore_merges = false;  // a piece that is a token as it stands is that token, whatever the merges make of it
};

// What is supported is told at Tokenizer::load. `source` names the document in errors.
Result<TokenizerParts> parse_tokenizer_json(std::string_view json, std::string source);

}  // namespace chiasm
