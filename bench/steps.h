// Steps of a language model over sequences of made-up tokens, and pictures of a number of patches: for timing a model
// without a prompt, a tokenizer or an engine around it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "models/language_model.h"
#include "must.h"

namespace chiasm::bench {

// Wide as it is high where possible: patches = h * w with both sides multiples of the merge size.
inline Grid grid_for(std::int64_t patches, std::int64_t merge) {
  std::int64_t h = static_cast<std::int64_t>(std::sqrt(static_cast<double>(patches))) / merge * merge;
  while (h > merge && (patches % h != 0 || patches / h % merge != 0)) h -= merge;
  return {1, h, patches / h};
}

// Sequences of a context of their own, of which the first `shared` tokens may be the same blocks, and steps for them.
class Steps {
 public:
  Steps(const LanguageModel& model, const Ops& ops, std::int64_t sequences, std::int64_t context, std::int64_t tokens,
        std::int64_t shared = 0)
      : model_(model), shared_(std::min(shared, context) / kKvBlock * kKvBlock) {
    const std::int64_t blocks = (context + tokens + 64 + kKvBlock - 1) / kKvBlock;
    pool_ = must(ops.make_kv_pool(model.kv_shape(blocks * sequences)));
    for (std::int64_t s = 0; s < sequences; ++s) {
      auto& table = tables_.emplace_back();
      for (std::int64_t b = 0; b < blocks; ++b)
        table.push_back(static_cast<std::int32_t>(b * sequences + (b < shared_ / kKvBlock ? 0 : s)));
    }
  }
  // The next `tokens` of every sequence after `past`; one logits row each, or none.
  void run(std::int64_t past, std::int64_t tokens, bool logits) { run(tables_, past, tokens, logits); }
  // Fills the context of every sequence, `step` tokens at a time; what is shared once.
  void fill(std::int64_t context, std::int64_t step) {
    for (std::int64_t past = 0; past < shared_; past += step)
      run(std::span(tables_).first(1), past, std::min(step, shared_ - past), false);
    for (std::int64_t past = shared_; past < context; past += step) run(past, std::min(step, context - past), false);
  }

 private:
  void run(std::span<const std::vector<std::int32_t>> tables, std::int64_t past, std::int64_t tokens, bool logits) {
    std::vector<std::int32_t> ids, positions, wanted;
    std::vector<SequenceRows> rows;
    for (const auto& table : tables) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        ids.push_back(static_cast<std::int32_t>((past + t) * 7919 % model_.config().vocab_size));
        positions.push_back(static_cast<std::int32_t>(past + t));
      }
      rows.push_back({table, past, tokens});
      if (logits) wanted.push_back(static_cast<std::int32_t>(ids.size() - 1));
    }
    std::vector<std::int32_t> likeliest(wanted.size());
    must(model_.forward_greedy({ids, {positions, positions, positions}, {}, rows, wanted}, *pool_, likeliest));
  }

  const LanguageModel& model_;
  const std::int64_t shared_;
  std::unique_ptr<KvPool> pool_;
  std::vector<std::vector<std::int32_t>> tables_;
};

}  // namespace chiasm::bench
