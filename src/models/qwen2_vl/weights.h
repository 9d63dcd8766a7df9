// From a checkpoint's tensors to weights in the memory of an Ops, one resident copy: a tensor's file pages are read at
// once where it is used in place, and let go as soon as it has been copied elsewhere.
// Thread contract: one thread a loader.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"
#include "models/checkpoint.h"
#include "models/weight_cache.h"

namespace chiasm {

struct Norm {
  Buffer weight, bias;  // [1, width]; RMS norms have no bias
};

// A layer's weight by its name in the checkpoint, without ".weight" and ".bias".
struct LinearName {
  std::string name;
  std::int64_t out = 0;
};

class WeightLoader {
 public:
  // Matrices are computed with in `precision`: rounded on the way, where they are not stored so, or taken from `cache`
  // (may be null), where they are kept.
  WeightLoader(const Checkpoint& checkpoint, const Ops& ops, Role side, Precision precision, const WeightCache* cache);

  // `name`.weight [out, in] (later dimensions flattened) and, if asked for, `name`.bias [out]. Errors name the folder
  // and the tensor: absent, or of another shape.
  Result<std::unique_ptr<const Weight>> linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias) {
    return linear({{name, out}}, in, bias);
  }
  // Several that are multiplied with the same rows, as one: their outputs stand beside each other.
  // Sizes are those of the checkpoint, however the weight is divided among the parts of the Ops.
  Result<std::unique_ptr<const Weight>> linear(const std::vector<LinearName>& parts, std::int64_t in, bool bias,
                                               const Split& split = {});
  // The projection behind a gate: down_precision().
  Result<std::unique_ptr<const Weight>> down(const std::string& name, std::int64_t out, std::int64_t in,
                                             const Split& split = {});
  // A table of embeddings: integers are int8 at least.
  Result<std::unique_ptr<const Weight>> table(const std::string& name, std::int64_t rows, std::int64_t width,
                                              const Split& split = {});
  Result<Norm> norm(const std::string& name, std::int64_t width, bool bias);

  // Once everything is loaded, and while it is there: what was rounded is kept for the next time.
  void finish();

  std::uint64_t bytes() const { return bytes_; }  // loaded so far

 private:
  Result<TensorView> matrix(const std::string& name, std::int64_t out, std::int64_t in) const;
  Result<std::unique_ptr<const Weight>> prepare(const std::vector<LinearName>& parts, std::int64_t in,
                                                std::span<const TensorView> biases, Precision precision,
                                                const Split& split) const;
  Result<std::unique_ptr<const Weight>> linear(const std::vector<LinearName>& parts, std::int64_t in, bool bias,
                                               Precision precision, const Split& split);
  Result<TensorView> vector(const std::string& name, std::int64_t size) const;
  Result<Buffer> upload(const std::string& name, std::int64_t size);
  // From the kept file; null where there is none, or it holds no such matrix.
  Result<std::unique_ptr<const Weight>> kept(const std::string& name, std::int64_t out, std::int64_t in,
                                             std::span<const TensorView> biases, Precision precision) const;
  const Checkpoint& checkpoint_;
  const Ops& ops_;
  const Precision precision_;
  const WeightCache* cache_;
  std::optional<WeightCache::Key> key_;  // where there is something to keep
  std::optional<PackedFile> file_;
  std::vector<NamedMatrix> rounded_;
  std::uint64_t bytes_ = 0;
};

// Host rows, which may stand in wider ones, into the memory of `ops`.
inline void upload_rows(const Ops& ops, ConstMatrixView from, View to) {
  if (from.stride == from.cols) return ops.upload({from.data, static_cast<std::size_t>(from.rows * from.cols)}, to);
  for (std::int64_t i = 0; i < from.rows; ++i)
    ops.upload({from.row(i), static_cast<std::size_t>(from.cols)}, to.row_range(i, 1));
}

// Shows a stage's value to a model's probe, if there is one: a copy on the host. Errors: no memory, those of
// download().
Status show_stage(const Ops& ops, const std::function<void(std::string_view stage, ConstMatrixView value)>& probe,
                  std::string_view stage, ConstView value);

// Calls part(begin, count) for [0, rows) in pieces of at most `piece` rows: bounds the memory of wide intermediate
// values. Results do not depend on the pieces, by the row contract of Ops.
template <class Part>
void in_pieces(std::int64_t rows, std::int64_t piece, const Part& part) {
  for (std::int64_t begin = 0; begin < rows; begin += piece) part(begin, std::min(piece, rows - begin));
}

}  // namespace chiasm
