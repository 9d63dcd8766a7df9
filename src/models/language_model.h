// From token ids and features to logits: the language half of a family.
//
// Thread contract: immutable after load; forward may be called from several threads on different pools.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/ops.h"
#include "models/checkpoint.h"
#include "models/layout.h"

namespace chiasm {

class WeightCache;

// Feature rows that take the place of embedded tokens.
struct Splice {
  ConstMatrixView features;  // [n, hidden_size]
  std::int64_t row = 0;      // of the batch: rows row .. row + n
};

// One step: the new tokens of several sequences, one sequence after the other.
struct LanguageBatch {
  std::span<const std::int32_t> token_ids;                    // [T]
  std::array<std::span<const std::int32_t>, 3> position_ids;  // [3][T]
  std::span<const Splice> splices;
  std::span<const SequenceRows> sequences;    // their counts sum to T
  std::span<const std::int32_t> logits_rows;  // rows whose logits are wanted
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual const TextConfig& config() const = 0;
  virtual KvShape kv_shape(std::int64_t blocks) const = 0;

  // Writes the step's keys and values into `pool`; returns logits [logits_rows.size(), vocab_size]. A row's logits are
  // bit-identical whatever stands beside it and however its prompt was cut into steps.
  virtual Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool) const = 0;

  // The same, of which only the likeliest token of each row is wanted (the lowest of equal ones): [logits_rows.size()].
  // -1 where the row's logits are not all finite.
  virtual Status forward_greedy(const LanguageBatch& batch, KvPool& pool, std::span<std::int32_t> likeliest) const = 0;

  virtual std::uint64_t weight_bytes() const = 0;

  // Called, when set, with the name and value of each stage ("inputs_embeds", "layer.0", ...): for goldens.
  using Probe = std::function<void(std::string_view stage, ConstMatrixView value)>;
  virtual Result<Matrix> forward(const LanguageBatch& batch, KvPool& pool, const Probe& probe) const = 0;
};

// Loads the language weights of a checkpoint opened for language (or whole); `ops` must outlive the model. The matrices
// are computed with in `precision`, else as they are stored; rounded ones may be kept in `cache`.
Result<std::unique_ptr<const LanguageModel>> load_language_model(const Checkpoint& checkpoint, const Ops& ops,
                                                                 std::optional<Precision> precision = {},
                                                                 const WeightCache* cache = nullptr);

}  // namespace chiasm
