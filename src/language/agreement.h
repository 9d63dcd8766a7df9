// Whether the files of a checkpoint folder that the language side reads agree with each other, and what they ask for
// that is not built. Found when the folder is opened, and not when a token of a late answer is the first to show it.
//
// Thread contract: pure functions.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "models/config.h"
#include "text/chat_prompt.h"
#include "text/tokenizer.h"

namespace chiasm {

// Every token of the tokenizer has a row in the embedding of `config`, and the special tokens of pictures and videos
// are the ones that `config` names. kFailedPrecondition, naming both files and fields; `config_source` is config.json's
// path.
Status check_tokenizer(const Tokenizer& tokenizer, const ChatTokens& tokens, const ModelConfig& config,
                       const std::string& config_source);

// The fields of a generation_config.json that are not read here and would change an answer in transformers, in the
// file's order. Anything not known to be harmless is one.
std::vector<std::string> neglected_fields(const GenerationConfig& config);

}  // namespace chiasm
