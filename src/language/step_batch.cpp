#include "language/step_batch.h"

#include <algorithm>

namespace chiasm {

StepBatch::StepBatch(std::span<const SequenceStep> steps) {
  for (const SequenceStep& step : steps) {
    const Sequence& sequence = *step.sequence;
    const std::int64_t first = sequence.computed, last = step.end();
    const auto base = static_cast<std::int64_t>(token_ids_.size());
    rows_.push_back({sequence.chain.block_table(), first, step.tokens});
    for (std::int64_t t = first; t < last; ++t) {
      const KvSlot& slot = sequence.slots[static_cast<std::size_t>(t)];
      token_ids_.push_back(slot.token_id);
      for (std::size_t axis = 0; axis < 3; ++axis) position_ids_[axis].push_back(slot.position[axis]);
    }
    for (const PlacedFeature& placed : sequence.request.prompt.features) {
      const ConstMatrixView features = placed.feature->rows.view();
      const std::int64_t begin = std::max(first, placed.row), end = std::min(last, placed.row + features.rows);
      if (begin < end) splices_.push_back({features.row_range(begin - placed.row, end - begin), base + begin - first});
    }
    if (step.samples()) logits_rows_.push_back(static_cast<std::int32_t>(base + step.tokens - 1));
  }
}

}  // namespace chiasm
