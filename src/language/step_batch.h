// The tokens of one step as the language model reads them: ids, positions, features, block tables.
//
// Thread contract: one thread; the sequences must stay as they are while the batch is in use.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "language/sequence.h"
#include "models/language_model.h"

namespace chiasm {

// `tokens` tokens behind the computed ones of a sequence, which has blocks for them.
struct SequenceStep {
  Sequence* sequence = nullptr;
  std::int64_t tokens = 0;

  std::int64_t end() const { return sequence->computed + tokens; }
  bool samples() const { return end() == sequence->size(); }  // its last token is among them
  // Of a prompt, or of an answer that computes itself again.
  bool is_prefill() const { return tokens > 1 || sequence->generated() == 0; }
};

class StepBatch {
 public:
  explicit StepBatch(std::span<const SequenceStep> steps);

  // One row of logits for each step that samples, in order.
  LanguageBatch view() const {
    return {token_ids_, {position_ids_[0], position_ids_[1], position_ids_[2]}, splices_, rows_, logits_rows_};
  }

 private:
  std::vector<std::int32_t> token_ids_, logits_rows_;
  std::array<std::vector<std::int32_t>, 3> position_ids_;
  std::vector<Splice> splices_;
  std::vector<SequenceRows> rows_;
};

}  // namespace chiasm
