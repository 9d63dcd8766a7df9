// From a checkpoint's tensors to weights in the memory of an Ops, one resident copy: a tensor's file pages are let go
// as soon as it has been copied. Thread contract: one thread a loader.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/ops.h"
#include "models/checkpoint.h"

namespace chiasm {

// A weight with its bias; the bias has no elements where there is none.
struct Linear {
  std::unique_ptr<const Weight> weight;
  Matrix bias;  // [1, out_features]

  Epilogue epilogue(Activation activation = Activation::kNone, bool add_to_out = false) const {
    return {.bias = bias.size() > 0 ? bias.data() : nullptr, .activation = activation, .add_to_out = add_to_out};
  }
};

struct Norm {
  Matrix weight, bias;  // [1, width]; RMS norms have no bias
};

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const Ops& ops) : checkpoint_(checkpoint), ops_(ops) {}

  // `name`.weight [out, in] (later dimensions flattened) and, if asked for, `name`.bias [out]. Errors name the folder
  // and the tensor: absent, or of another shape.
  Result<Linear> linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias);
  Result<Norm> norm(const std::string& name, std::int64_t width, bool bias);

  std::uint64_t bytes() const { return bytes_; }  // loaded so far

 private:
  Result<Matrix> vector(const std::string& name, std::int64_t size);
  const Checkpoint& checkpoint_;
  const Ops& ops_;
  std::uint64_t bytes_ = 0;
};

// Calls part(begin, count) for [0, rows) in pieces of at most `piece` rows: bounds the memory of wide intermediate
// values. Results do not depend on the pieces, by the row contract of Ops.
template <class Part>
void in_pieces(std::int64_t rows, std::int64_t piece, const Part& part) {
  for (std::int64_t begin = 0; begin < rows; begin += piece) part(begin, std::min(piece, rows - begin));
}

}  // namespace chiasm
