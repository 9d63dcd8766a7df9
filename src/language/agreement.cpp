#include "language/agreement.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "text/utf8.h"

namespace chiasm {
namespace {

// What a GenerationConfig may hold that has no effect on which tokens are generated: where it came from, what is
// returned beside the tokens, how the work is done.
constexpr std::array<std::string_view, 22> kHarmless = {"_commit_hash",
                                                        "_from_model_config",
                                                        "_name_or_path",
                                                        "assistant_confidence_threshold",
                                                        "assistant_early_exit",
                                                        "cache_config",
                                                        "cache_implementation",
                                                        "compile_config",
                                                        "decoder_start_token_id",  // of encoder-decoder models
                                                        "disable_compile",
                                                        "is_assistant",
                                                        "low_memory",
                                                        "max_matching_ngram_size",
                                                        "model_type",
                                                        "num_assistant_tokens",
                                                        "num_assistant_tokens_schedule",
                                                        "prefill_chunk_size",
                                                        "prompt_lookup_num_tokens",
                                                        "return_legacy_cache",
                                                        "trust_remote_code",
                                                        "use_cache",
                                                        "use_model_defaults"};

bool is_harmless(std::string_view field) {
  return field.starts_with("output_") || field.starts_with("return_dict") ||
         std::find(kHarmless.begin(), kHarmless.end(), field) != kHarmless.end();
}

}  // namespace

Status check_tokenizer(const Tokenizer& tokenizer, const ChatTokens& tokens, const ModelConfig& config,
                       const std::string& config_source) {
  if (tokenizer.size() > config.text.vocab_size) {
    const auto last = static_cast<std::int32_t>(tokenizer.size() - 1);
    return fail(Code::kFailedPrecondition,
                "{}: field '{}': '{}' has id {}, expected ids below {}: field 'vocab_size' of {} (are the two files of "
                "one model?)",
                tokenizer.source(), tokenizer.is_added(last) ? "added_tokens" : "model.vocab",
                repair_utf8(tokenizer.token_bytes(last)), last, config.text.vocab_size, config_source);
  }
  struct Named {
    std::string_view token, field;
    std::int64_t here, there;
  };
  const std::array<Named, 4> named = {
      {{"<|vision_start|>", "vision_start_token_id", tokens.vision_start, config.vision_start_token_id},
       {"<|vision_end|>", "vision_end_token_id", tokens.vision_end, config.vision_end_token_id},
       {"<|image_pad|>", "image_token_id", tokens.image_pad, config.image_token_id},
       {"<|video_pad|>", "video_token_id", tokens.video_pad, config.video_token_id}}};
  for (const auto& [token, field, here, there] : named)
    if (there >= 0 && here != there)
      return fail(Code::kFailedPrecondition,
                  "{}: field '{}': expected {}, the id of {} in field 'added_tokens' of {}, got {} (are the two files "
                  "of one model?)",
                  config_source, field, here, token, tokenizer.source(), there);
  return {};
}

std::vector<std::string> neglected_fields(const GenerationConfig& config) {
  std::vector<std::string> out;
  std::copy_if(config.unread_fields.begin(), config.unread_fields.end(), std::back_inserter(out),
               [](const std::string& field) { return !is_harmless(field); });
  return out;
}

}  // namespace chiasm
