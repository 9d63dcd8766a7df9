#include "language/prompt_assembly.h"

#include <algorithm>
#include <utility>

namespace chiasm {

Result<LanguagePrompt> assemble_prompt(std::span<const PromptPiece> pieces,
                                       std::span<const std::shared_ptr<const Feature>> images,
                                       std::span<const std::shared_ptr<const Feature>> videos,
                                       const ModelConfig& config, const ModelLayout& layout,
                                       const Digest& vision_digest, std::span<const Digest> also_accepted) {
  LanguagePrompt out;
  std::vector<Span> spans;
  for (const PromptPiece& piece : pieces) {
    if (piece.kind == PromptPiece::Kind::kTokens) {
      out.token_ids.insert(out.token_ids.end(), piece.ids.begin(), piece.ids.end());
      spans.push_back({.length = static_cast<std::int64_t>(piece.ids.size())});
      continue;
    }
    const bool video = piece.kind == PromptPiece::Kind::kVideo;
    const auto& inputs = video ? videos : images;
    if (piece.index < 0 || piece.index >= static_cast<std::int64_t>(inputs.size()))
      return fail(Code::kInvalidArgument, "the prompt names {} {}, but {} were given", video ? "video" : "picture",
                  piece.index + 1, inputs.size());
    const std::shared_ptr<const Feature>& feature = inputs[static_cast<std::size_t>(piece.index)];
    RETURN_IF_ERROR(check_feature(feature->meta, vision_digest, also_accepted));
    RETURN_IF_ERROR(
        check_rows(feature->meta, feature->rows.view(), config.vision.spatial_merge_size, config.text.hidden_size));
    const auto& [t, h, w] = feature->meta.grid_thw;
    const std::int64_t rows = feature->rows.rows();
    spans.push_back({.length = rows, .vision = true, .grid = {t, h, w}});
    out.features.push_back({out.size(), feature});
    out.token_ids.insert(out.token_ids.end(), static_cast<std::size_t>(rows),
                         static_cast<std::int32_t>(video ? config.video_token_id : config.image_token_id));
  }
  if (out.token_ids.empty()) return fail(Code::kInvalidArgument, "the prompt is empty");
  out.positions = layout.position_ids(spans);
  return out;
}

std::int64_t common_prefix(std::span<const LanguagePrompt* const> prompts) {
  if (prompts.empty()) return 0;
  const LanguagePrompt& first = *prompts.front();
  std::int64_t length = first.size();
  for (const LanguagePrompt* other : prompts.subspan(1)) {
    length = std::min(length, other->size());
    length = std::mismatch(first.token_ids.begin(), first.token_ids.begin() + length, other->token_ids.begin()).first -
             first.token_ids.begin();
    // Feature rows look alike by their ids: up to the first place where the features differ.
    for (std::size_t i = 0; i < first.features.size() && first.features[i].row < length; ++i) {
      const bool same = i < other->features.size() && other->features[i].row == first.features[i].row &&
                        other->features[i].feature->meta.id == first.features[i].feature->meta.id;
      if (!same) length = first.features[i].row;
    }
  }
  return length;
}

}  // namespace chiasm
