// For tests: prompts with pictures and videos, and steps of a language model over them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "models/language_model.h"
#include "models/layout.h"

namespace chiasm {

struct GoldenPrompt {
  std::vector<std::int32_t> ids;
  Positions positions;
  std::vector<std::pair<std::int64_t, Matrix>> features;  // and the row of the prompt where each begins
  std::vector<std::int32_t> block_table;                  // 0, 1, 2, ... at first, with room for an answer

  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }

  // The next token, after the prompt: its position is its index plus rope_delta.
  void push(std::int32_t id);
};

// `features` and `grids` of the prompt's pictures and videos in order.
GoldenPrompt make_golden_prompt(const ModelLayout& layout, const ModelConfig& config, std::vector<std::int32_t> ids,
                                const std::vector<Grid>& grids, std::vector<Matrix> features);

// Rows [begin, begin + count) of a prompt.
struct PromptPiece {
  const GoldenPrompt* prompt = nullptr;
  std::int64_t begin = 0, count = 0;
};

// One step over pieces of several prompts; logits of every row.
Result<Matrix> step(const LanguageModel& model, const std::vector<PromptPiece>& pieces, KvPool& pool,
                    const LanguageModel::Probe& probe = nullptr);

// A whole prompt in pieces of `chunk` tokens; logits of every row.
Matrix prefill(const LanguageModel& model, const GoldenPrompt& prompt, std::int64_t chunk, KvPool& pool);

// Prefills the prompt and takes the likeliest token `tokens` times. `last`: the prompt's last logits.
std::vector<std::int32_t> greedy_answer(const LanguageModel& model, GoldenPrompt& prompt, std::size_t tokens,
                                        KvPool& pool, Matrix& last);

}  // namespace chiasm
