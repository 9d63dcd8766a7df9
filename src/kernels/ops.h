// The arithmetic that models are made of: one contract, implemented by ref (plain loops), cpu (Highway) and, later,
// cuda.
//
// Model code is written once against this and holds no device word: buffers come from allocate(), weights from
// prepare(), and what the host wants to see goes through download(). All views are row-major f32 in the memory of the
// Ops that allocated them.
//
// Row contract: every output row depends on its own input row (and, in attention, on the keys of its own sequence) and
// never on how many rows stand beside it. So a picture's features and a question's logits are bit-identical alone, in a
// batch, in chunks or after a prefix. Implementations may not split a sum by the number of rows or threads.
//
// Thread contract: const methods may be called from several threads; calls on one KvPool must not overlap.
// Shapes are the caller's duty: a mismatch is a bug (CHECK), not an error.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace chiasm {

// A weight matrix [out_features, in_features] in the layout its Ops wants. Elements keep the checkpoint's dtype.
class Weight {
 public:
  virtual ~Weight() = default;
  std::int64_t out_features() const { return out_features_; }
  std::int64_t in_features() const { return in_features_; }
  virtual std::uint64_t bytes() const = 0;  // memory it holds

 protected:
  Weight(std::int64_t out_features, std::int64_t in_features)
      : out_features_(out_features), in_features_(in_features) {}

 private:
  std::int64_t out_features_, in_features_;
};

enum class Activation : std::uint8_t {
  kNone,
  kQuickGelu,  // x * sigmoid(1.702 x)
  kGelu,       // x * Phi(x), the exact erf form
};

// What happens to a matmul's sums before they are stored.
struct Epilogue {
  const float* bias = nullptr;  // [out_features], or none
  Activation activation = Activation::kNone;
  bool add_to_out = false;  // out += instead of out =; the residual connection
};

// cos and sin of every row's angles, [rows, head_dim / 2] each.
struct RopeTable {
  ConstMatrixView cos, sin;
};

// KV of all layers in blocks of kKvBlock tokens. The layout inside is the implementation's.
inline constexpr std::int64_t kKvBlock = 32;

struct KvShape {
  std::int64_t layers = 0, kv_heads = 0, head_dim = 0, blocks = 0;
};

class KvPool {
 public:
  virtual ~KvPool() = default;
  const KvShape& shape() const { return shape_; }
  virtual std::uint64_t bytes() const = 0;  // when every block is used

 protected:
  explicit KvPool(const KvShape& shape) : shape_(shape) {}

 private:
  KvShape shape_;
};

// The rows of one sequence in a step: `count` new tokens that follow `past` tokens already in the pool.
// Token i of the sequence lives in block block_table[i / kKvBlock] at i % kKvBlock.
struct SequenceRows {
  std::span<const std::int32_t> block_table;
  std::int64_t past = 0;
  std::int64_t count = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual std::string_view name() const = 0;  // "ref", "cpu"

  // --- memory
  // Contents undefined. Sizes are checked: kResourceExhausted when the memory is not there.
  virtual Result<Matrix> allocate(std::int64_t rows, std::int64_t cols) const = 0;
  virtual void upload(std::span<const float> from, MatrixView to) const = 0;   // from.size() == rows * cols
  virtual void download(ConstMatrixView from, std::span<float> to) const = 0;  // to.size() == rows * cols
  // A [N, K] (or [N, ...], the rest flattened) F32/BF16/F16 tensor made ready for matmul and embed.
  virtual Result<std::unique_ptr<const Weight>> prepare(const TensorView& weight) const = 0;
  virtual Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const = 0;

  // --- products
  // out [M, N] = activation(x [M, K] * weight^T + bias), or added to out.
  virtual void matmul(ConstMatrixView x, const Weight& weight, const Epilogue& epilogue, MatrixView out) const = 0;
  // out [T, K] = rows `ids` of a prepared [N, K] table, as f32. Ids are in range.
  virtual void embed(std::span<const std::int32_t> ids, const Weight& table, MatrixView out) const = 0;

  // --- rows. out may be x.
  // (x - mean) / sqrt(var + eps) * weight + bias; weight and bias [cols].
  virtual void layer_norm(ConstMatrixView x, const float* weight, const float* bias, float eps,
                          MatrixView out) const = 0;
  // x / sqrt(mean(x^2) + eps) * weight.
  virtual void rms_norm(ConstMatrixView x, const float* weight, float eps, MatrixView out) const = 0;
  // out [T, I] = silu(gate [T, I]) * up [T, I].
  virtual void silu_mul(ConstMatrixView gate, ConstMatrixView up, MatrixView out) const = 0;
  // In place on x [T, heads * head_dim]: each head's (a, b) halves become (a cos - b sin, b cos + a sin).
  virtual void rope(MatrixView x, std::int64_t heads, const RopeTable& table) const = 0;
  // to.row(rows[i]) = from.row(i): features into the embedded prompt.
  virtual void scatter_rows(ConstMatrixView from, std::span<const std::int32_t> rows, MatrixView to) const = 0;
  // to.row(i) = from.row(rows[i]).
  virtual void gather_rows(ConstMatrixView from, std::span<const std::int32_t> rows, MatrixView to) const = 0;

  // --- attention
  // softmax(scale q k^T) v inside each segment [cu_seqlens[i], cu_seqlens[i + 1]), every row seeing its whole segment.
  // q, k, v, out: [T, heads * head_dim] (any stride). Never stores scores of more than a tile: memory is O(T).
  virtual void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, std::int64_t heads, float scale,
                         std::span<const std::int64_t> cu_seqlens, MatrixView out) const = 0;

  // Stores k, v [T, kv_heads * head_dim] of `sequences` (their rows one after the other) as the tokens past.. of each.
  virtual void kv_write(ConstMatrixView k, ConstMatrixView v, std::span<const SequenceRows> sequences,
                        std::int64_t layer, KvPool& pool) const = 0;
  // Causal attention of q [T, heads * head_dim] over the pool: row j of a sequence sees its tokens 0 .. past + j.
  // heads is a multiple of kv_heads; head h reads kv head h / (heads / kv_heads). kv_write of this step comes first.
  virtual void paged_attention(ConstMatrixView q, std::int64_t heads, float scale,
                               std::span<const SequenceRows> sequences, std::int64_t layer, const KvPool& pool,
                               MatrixView out) const = 0;
  // Block `to` becomes a copy of block `from` in every layer: two sequences that part ways inside a block.
  virtual void copy_kv_block(std::int32_t from, std::int32_t to, KvPool& pool) const = 0;
};

// Plain loops: the reference that every other implementation is tested against. Slow.
std::unique_ptr<Ops> make_ref_ops();

// Highway kernels over a thread pool, which must outlive the Ops.
std::unique_ptr<Ops> make_cpu_ops(ThreadPool& threads);

}  // namespace chiasm
