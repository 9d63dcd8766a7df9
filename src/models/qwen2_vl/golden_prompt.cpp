#include "models/qwen2_vl/golden_prompt.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "base/check.h"

namespace chiasm {

void GoldenPrompt::push(std::int32_t id) {
  for (auto& axis : positions.position_ids) axis.push_back(static_cast<std::int32_t>(size() + positions.rope_delta));
  ids.push_back(id);
}

GoldenPrompt make_golden_prompt(const ModelLayout& layout, const ModelConfig& config, std::vector<std::int32_t> ids,
                                const std::vector<Grid>& grids, std::vector<Matrix> features) {
  GoldenPrompt prompt;
  std::vector<Span> spans;
  std::size_t next = 0;
  for (std::size_t i = 0; i < ids.size();) {
    Span span{.length = 1, .vision = ids[i] == config.image_token_id || ids[i] == config.video_token_id};
    if (span.vision) {
      span.grid = grids.at(next);
      span.length = span.grid.rows(config.vision.spatial_merge_size);
      CHECK(features.at(next).rows() == span.length);
      prompt.features.emplace_back(static_cast<std::int64_t>(i), std::move(features[next++]));
    }
    i += static_cast<std::size_t>(span.length);
    spans.push_back(span);
  }
  CHECK(next == grids.size());
  prompt.ids = std::move(ids);
  prompt.positions = layout.position_ids(spans);
  prompt.block_table.resize(static_cast<std::size_t>(prompt.size() / kKvBlock + 3));
  std::iota(prompt.block_table.begin(), prompt.block_table.end(), 0);
  return prompt;
}

Result<Matrix> step(const LanguageModel& model, const std::vector<PromptPiece>& pieces, KvPool& pool,
                    const LanguageModel::Probe& probe) {
  std::vector<std::int32_t> ids;
  std::array<std::vector<std::int32_t>, 3> positions;
  std::vector<Splice> splices;
  std::vector<SequenceRows> sequences;
  for (const PromptPiece& piece : pieces) {
    const GoldenPrompt& prompt = *piece.prompt;
    const auto row = static_cast<std::int64_t>(ids.size());
    for (const auto& [first, features] : prompt.features) {
      const std::int64_t begin = std::max(piece.begin, first);
      const std::int64_t end = std::min(piece.begin + piece.count, first + features.rows());
      if (begin < end)
        splices.push_back({features.view().row_range(begin - first, end - begin), row + begin - piece.begin});
    }
    ids.insert(ids.end(), prompt.ids.begin() + piece.begin, prompt.ids.begin() + piece.begin + piece.count);
    for (std::size_t a = 0; a < 3; ++a) {
      const auto& axis = prompt.positions.position_ids[a];
      positions[a].insert(positions[a].end(), axis.begin() + piece.begin, axis.begin() + piece.begin + piece.count);
    }
    sequences.push_back({prompt.block_table, piece.begin, piece.count});
  }
  std::vector<std::int32_t> wanted(ids.size());
  std::iota(wanted.begin(), wanted.end(), 0);
  return model.forward({.token_ids = ids,
                        .position_ids = {positions[0], positions[1], positions[2]},
                        .splices = splices,
                        .sequences = sequences,
                        .logits_rows = wanted},
                       pool, probe);
}

Matrix prefill(const LanguageModel& model, const GoldenPrompt& prompt, std::int64_t chunk, KvPool& pool) {
  Matrix all(prompt.size(), model.config().vocab_size);
  for (std::int64_t begin = 0; begin < prompt.size(); begin += chunk) {
    const auto logits = step(model, {{&prompt, begin, std::min(chunk, prompt.size() - begin)}}, pool);
    EXPECT_TRUE(logits) << logits.error().message;
    if (!logits) break;
    std::copy_n(logits->data(), logits->size(), all.row(begin));
  }
  return all;
}

std::vector<std::int32_t> greedy_answer(const LanguageModel& model, GoldenPrompt& prompt, std::size_t tokens,
                                        KvPool& pool, Matrix& last) {
  std::vector<std::int32_t> answer;
  const auto likeliest = [](const Matrix& logits) {
    const float* row = logits.row(logits.rows() - 1);
    return static_cast<std::int32_t>(std::max_element(row, row + logits.cols()) - row);
  };
  for (std::int64_t begin = 0; answer.size() < tokens; begin = prompt.size() - 1) {
    const auto logits = step(model, {{&prompt, begin, prompt.size() - begin}}, pool);
    EXPECT_TRUE(logits) << logits.error().message;
    if (!logits) break;
    if (answer.empty()) {
      last = Matrix(1, logits->cols());
      std::copy_n(logits->row(logits->rows() - 1), logits->cols(), last.data());
    }
    answer.push_back(likeliest(*logits));
    prompt.push(answer.back());
  }
  return answer;
}

}  // namespace chiasm
