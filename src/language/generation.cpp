#include "language/generation.h"

#include <algorithm>

#include "language/stop_strings.h"

namespace chiasm {
namespace {

Status check_prompt(const LanguagePrompt& prompt, const TextConfig& config) {
  const std::int64_t limit = config.max_position_embeddings, size = prompt.size();
  if (size == 0) return fail(Code::kInvalidArgument, "the prompt is empty");
  if (size >= limit)
    return fail(Code::kResourceExhausted,
                "the prompt has {} tokens; this model takes fewer than {} (max_position_embeddings)", size, limit);
  for (const std::int32_t id : prompt.token_ids)
    if (id < 0 || id >= config.vocab_size)
      return fail(Code::kInvalidArgument, "token_ids: expected 0 to {}, got {}", config.vocab_size - 1, id);
  for (const auto& positions : prompt.positions.position_ids) {
    if (static_cast<std::int64_t>(positions.size()) != size)
      return fail(Code::kInvalidArgument, "position_ids: expected [3, {}], got a row of {}", size, positions.size());
    const std::int32_t lowest = *std::min_element(positions.begin(), positions.end());
    if (lowest < 0) return fail(Code::kInvalidArgument, "position_ids: expected 0 or more, got {}", lowest);
  }
  const std::int64_t delta = prompt.positions.rope_delta;
  if (delta < -size || delta > limit)
    return fail(Code::kInvalidArgument, "rope_delta: expected {} to {}, got {}", -size, limit, delta);
  std::int64_t end = 0;
  for (const PlacedFeature& placed : prompt.features) {
    if (placed.feature == nullptr) return fail(Code::kInvalidArgument, "image_embeds: a picture without a feature");
    const ConstMatrixView rows = placed.feature->rows.view();
    if (rows.cols != config.hidden_size)
      return fail(Code::kInvalidArgument, "image_embeds: expected rows of {} values, got {}", config.hidden_size,
                  rows.cols);
    if (placed.row < end || placed.row > size || rows.rows > size - placed.row)
      return fail(Code::kInvalidArgument,
                  "image_embeds: {} rows from token {} do not fit a prompt of {} behind token {}", rows.rows,
                  placed.row, size, end);
    end = placed.row + rows.rows;
  }
  return {};
}

}  // namespace

Status check_request(const GenerationRequest& request, const TextConfig& config) {
  RETURN_IF_ERROR(check_sampling(request.sampling, config.vocab_size));
  RETURN_IF_ERROR(check_prompt(request.prompt, config));
  if (request.max_tokens < 1)
    return fail(Code::kInvalidArgument, "max_tokens: expected at least 1, got {}", request.max_tokens);
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens)
    return fail(Code::kInvalidArgument, "min_tokens: expected 0 to max_tokens ({}), got {}", request.max_tokens,
                request.min_tokens);
  return check_stop_strings(request.stop);
}

Status check_requests(std::span<const GenerationRequest> requests, const TextConfig& config) {
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (auto status = check_request(requests[i], config); !status)
      return fail_in(fmt::format("question {}", i + 1), status.error());
  return {};
}

}  // namespace chiasm
