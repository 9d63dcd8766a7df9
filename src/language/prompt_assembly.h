// From a rendered chat and its features to what the language model reads: token ids, positions, where features go.
//
// Thread contract: plain values and pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "features/feature.h"
#include "models/config.h"
#include "models/layout.h"
#include "text/chat_prompt.h"

namespace chiasm {

// The rows of one picture or video, which stand at tokens [row, row + feature->rows.rows()).
struct PlacedFeature {
  std::int64_t row = 0;
  std::shared_ptr<const Feature> feature;
};

struct LanguagePrompt {
  std::vector<std::int32_t> token_ids;  // image_token_id or video_token_id where features stand
  Positions positions;
  std::vector<PlacedFeature> features;  // in order of row

  std::int64_t size() const { return static_cast<std::int64_t>(token_ids.size()); }
};

// `images` and `videos` by their index in the chat. Errors: an index without a feature, a feature whose width, grid or
// vision digest (unless among `also_accepted`) is not this model's.
Result<LanguagePrompt> assemble_prompt(std::span<const PromptPiece> pieces,
                                       std::span<const std::shared_ptr<const Feature>> images,
                                       std::span<const std::shared_ptr<const Feature>> videos,
                                       const ModelConfig& config, const ModelLayout& layout,
                                       const Digest& vision_digest, std::span<const Digest> also_accepted = {});

// How many tokens the prompts have in common from the start: same ids, same features. Their positions then agree too.
std::int64_t common_prefix(std::span<const LanguagePrompt* const> prompts);

}  // namespace chiasm
