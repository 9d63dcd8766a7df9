// The arithmetic that models are made of: one contract, implemented by ref (plain loops), cpu (Highway) and cuda.
//
// Model code is written once against this and holds no device word: buffers come from allocate(), weights from
// prepare(), and what the host wants to see goes through download(). Views are row-major and in the memory of the Ops
// that allocated them; so are biases and norm weights. Between two operations values are kept as activations() says,
// the residual stream is always F32.
//
// Row contract: every output row depends on its own input row (and, in attention, on the keys of its own sequence) and
// never on how many rows stand beside it. So a picture's features and a question's logits are bit-identical alone, in a
// batch, in chunks or after a prefix. Implementations may not split a sum by the number of rows or threads. What a
// device keeps of this is in docs/adr/0011-cuda.md.
//
// Thread contract: const methods may be called from several threads; calls on one KvPool must not overlap. An operation
// of a device may still be under way when its call returns; what goes wrong in it is reported by the next download().
// Shapes are the caller's duty: a mismatch is a bug (CHECK), not an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/buffer.h"
#include "tensor/precision.h"
#include "tensor/tensor.h"

namespace chiasm {

// A weight matrix [out_features, in_features] with its bias, where it has one, in the layout its Ops wants. Elements
// keep the checkpoint's dtype unless the Ops says otherwise.
class Weight {
 public:
  virtual ~Weight() = default;
  std::int64_t out_features() const { return out_features_; }
  std::int64_t in_features() const { return in_features_; }
  Precision precision() const { return precision_; }
  virtual std::uint64_t bytes() const = 0;  // of its elements, wherever they lie, the bias with them
  // Its integers as they lie in the host's memory, for Ops::adopt(); of weights that are kept in another way nothing.
  virtual std::span<const std::byte> packed() const { return {}; }
  // Whether it reads the tensors it was made of where they lie: their pages are to stay.
  virtual bool in_place() const { return false; }

 protected:
  Weight(std::int64_t out_features, std::int64_t in_features, Precision precision = Precision::kExact)
      : out_features_(out_features), in_features_(in_features), precision_(precision) {}

 private:
  std::int64_t out_features_, in_features_;
  Precision precision_;
};

enum class Activation : std::uint8_t {
  kNone,
  kQuickGelu,  // x * sigmoid(1.702 x)
  kGelu,       // x * Phi(x), the exact erf form
};

// What happens to a matmul's sums before they are stored, behind the weight's bias.
struct Epilogue {
  Activation activation = Activation::kNone;
  bool add_to_out = false;  // out += instead of out =; the residual connection
  // The first half of out becomes silu(first half) * second half, what is in the second is undefined afterwards.
  // Without another activation, without add_to_out.
  bool gated = false;
  // Whether a row's bits matter more than the speed of a few rows: where a device has kernels of its own for few rows,
  // it is not to take them. Pictures' features are kept and compared, tokens are not.
  bool steady = false;
};

// cos and sin of every row's angles, [rows, head_dim / 2] each.
struct RopeTable {
  ConstView cos, sin;
};

// What the angles of a table come from: angle(row, pair) = positions[axis[pair]][row] * frequency[pair], in f32.
struct RopeAngles {
  std::span<const std::span<const std::int32_t>> positions;  // [axes][rows]
  std::span<const std::int32_t> axis;                        // of each pair
  std::span<const float> frequency;                          // of each pair
};

// KV of all layers in blocks of kKvBlock tokens. The layout inside is the implementation's.
inline constexpr std::int64_t kKvBlock = 32;

struct KvShape {
  std::int64_t layers = 0, kv_heads = 0, head_dim = 0, blocks = 0;
};

// What a model keeps beside a pool from step to step.
class KvCompanion {
 public:
  virtual ~KvCompanion() = default;
};

class KvPool {
 public:
  virtual ~KvPool() = default;
  const KvShape& shape() const { return shape_; }
  virtual std::uint64_t bytes() const = 0;  // when every block is used
  std::unique_ptr<KvCompanion>& companion() { return companion_; }

 protected:
  explicit KvPool(const KvShape& shape) : shape_(shape) {}

 private:
  KvShape shape_;
  std::unique_ptr<KvCompanion> companion_;
};

// The rows of one sequence in a step: `count` new tokens that follow `past` tokens already in the pool.
// Token i of the sequence lives in block block_table[i / kKvBlock] at i % kKvBlock.
struct SequenceRows {
  std::span<const std::int32_t> block_table;
  std::int64_t past = 0;
  std::int64_t count = 0;
};

// What the rows of a step are besides their place: ids of tokens, and the angles that queries and keys turn by.
struct StepTokens {
  std::span<const std::int32_t> ids;
  RopeAngles angles;
};

// The rows of one step, in the form that an Ops' kernels want: made once a step, used in every layer. The block tables
// must live as long.
class StepRows {
 public:
  explicit StepRows(std::span<const SequenceRows> sequences) : sequences_(sequences.begin(), sequences.end()) {}
  virtual ~StepRows() = default;
  std::span<const SequenceRows> sequences() const { return sequences_; }

 private:
  std::vector<SequenceRows> sequences_;
};

// A layer's projections of a step, [T, (heads + 2 * kv_heads) * head_dim], taken apart.
struct StepProjections {
  StepProjections(View qkv, std::int64_t heads, const KvShape& shape);
  View q, k, v, q_and_k;
};

// Rows [cu_seqlens[i], cu_seqlens[i + 1]) attend to each other; likewise made once.
class Segments {
 public:
  explicit Segments(std::span<const std::int64_t> cu_seqlens) : cu_seqlens_(cu_seqlens.begin(), cu_seqlens.end()) {}
  virtual ~Segments() = default;
  std::span<const std::int64_t> cu_seqlens() const { return cu_seqlens_; }

 private:
  std::vector<std::int64_t> cu_seqlens_;
};

// Rows or columns of a tensor that one part of an Ops has: [begin, begin + count), and zeros behind them up to the same
// width everywhere. Shares may overlap: what both need, both have.
struct Share {
  std::int64_t begin = 0, count = 0;
};
struct Shares {
  std::int64_t width = 0;
  std::vector<Share> of_part;
};

// n of them in as equal pieces as there are parts; of a multiple of 8 where they do not come out even.
Shares even_shares(std::int64_t n, int parts);

// How a weight is divided among the parts of an Ops (Ops::parts). Where it has one part nothing is.
struct Split {
  enum class Kind : std::uint8_t {
    kNone,     // every part has all of it
    kOutputs,  // shares of each tensor's rows: `out` of matmul is the part's own columns
    kInputs,   // shares of the columns, one for all tensors: x is the part's own columns, `out` the sum over all parts
    kJoined,   // rows as they come, out is whole: its columns from all parts beside each other
  };
  Kind kind = Kind::kNone;
  std::vector<Shares> shares;  // kOutputs: of each tensor; kInputs: one; else none
};

// Operations that an Ops recorded, to be run again in one go.
class Recording {
 public:
  virtual ~Recording() = default;
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual std::string_view name() const = 0;  // "ref", "cpu", "cuda"
  // Where it computes in several places at once (ops_group.h), how many: every operation is done in all of them, on
  // views of the same shape that hold what differs only where a weight's Split says so.
  virtual int parts() const { return 1; }

  // --- memory
  // What values between two operations are to be kept as.
  virtual DType activations() const { return DType::kF32; }
  // With fewer rows than this an operation leaves a part of the device idle: wide intermediate values are not to be cut
  // into smaller pieces.
  virtual std::int64_t filling_rows() const { return 1; }
  // Contents undefined. Sizes are checked: kResourceExhausted when the memory is not there.
  virtual Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype = DType::kF32) const = 0;
  // from.size() == to.rows * to.cols; rounded to `to`'s dtype. What is wrong on a device the next download() says.
  virtual void upload(std::span<const float> from, View to) const = 0;
  // Host values as an operand: themselves where the Ops computes on the host, else a copy of dtype activations().
  struct Operand {
    Buffer copy;
    ConstView view;
  };
  virtual Result<Operand> bring(ConstMatrixView host) const { return Operand{{}, host}; }
  // to.size() == from.rows * from.cols. Waits for all that was asked before; its errors are those of any of it.
  virtual Status download(ConstView from, std::span<float> to) const = 0;
  // [N_i, K] (or [N_i, ...], the rest flattened) F32/BF16/F16 tensors under each other as one weight [sum of N_i, K],
  // ready for matmul and embed, with the biases [N_i] likewise (none, or one each). A tensor that has an owner may be
  // used where it lies, which keeps the owner; others are copied.
  virtual Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                        std::span<const TensorView> biases) const = 0;
  // The same, divided among the parts.
  virtual Result<std::unique_ptr<const Weight>> prepare_split(std::span<const TensorView> weights,
                                                              std::span<const TensorView> biases,
                                                              const Split& split) const;
  // The same in small integers (kInt8, kInt4), rounded now or before, or in kFp8, rounded now. kUnimplemented where the
  // Ops has no kernels for it.
  virtual Result<std::unique_ptr<const Weight>> quantise(std::span<const TensorView> weights,
                                                         std::span<const TensorView> biases, Precision precision) const;
  virtual Result<std::unique_ptr<const Weight>> prepare_quantised(std::span<const QuantisedTensor> weights,
                                                                  std::span<const TensorView> biases,
                                                                  Precision precision) const;
  // What names the layout of Weight::packed(), its version with it; empty where there is none.
  virtual std::string_view packed_layout() const { return {}; }
  // A weight of bytes that packed() of the same layout gave, used where they lie; `owner` keeps them. Errors: another
  // number of bytes than the shape's.
  struct PackedMatrix {
    std::int64_t out_features = 0, in_features = 0;
    Precision precision = Precision::kExact;
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;
  };
  virtual Result<std::unique_ptr<const Weight>> adopt(const PackedMatrix& packed,
                                                      std::span<const TensorView> biases) const;
  virtual Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const = 0;
  virtual std::uint64_t kv_block_bytes(const KvShape& shape) const;  // of one block in all layers
  // Bytes that are free where make_kv_pool takes all of a pool at once; none where a pool takes memory as it is used.
  virtual std::optional<std::uint64_t> free_for_kv() const { return std::nullopt; }
  // For a pool of this shape and queries of `heads` heads.
  virtual Result<std::unique_ptr<const StepRows>> make_step(std::span<const SequenceRows> sequences, std::int64_t heads,
                                                            const KvShape& shape) const;
  // The same for sequences of one row each and their tokens, in the place of what `step` holds (nothing at first). True
  // where recordings of operations with the old one hold for the new one. Only where the Ops records, as the next
  // three.
  virtual Result<bool> renew_step(std::span<const SequenceRows> sequences, const StepTokens& tokens, std::int64_t heads,
                                  const KvShape& shape, std::unique_ptr<const StepRows>& step) const;
  virtual Result<std::unique_ptr<const Segments>> make_segments(std::span<const std::int64_t> cu_seqlens) const;

  // --- recordings: many small operations at the price of one
  virtual bool records() const { return false; }
  // What `body` asks for, which is not done now. It may not allocate, upload, download or make anything, and nobody
  // else may use the Ops meanwhile. The views must stay as long as it is replayed.
  virtual Result<std::unique_ptr<const Recording>> record(const std::function<void()>& body) const;
  virtual void replay(const Recording& recording) const;
  // What a recorded step begins with: embed of its tokens' ids to x [T, K], their angles to cos and sin [T, pairs].
  virtual void begin_step(const StepRows& step, const Weight& table, View x, View cos, View sin) const;
  // What it ends with, argmax of its logits [T, N], and once it was replayed, what they were. end_step waits for
  // nothing.
  virtual void end_step(ConstView logits, const StepRows& step) const;
  virtual Status likeliest(const StepRows& step, std::span<std::int32_t> out) const;

  // --- products
  // out [M, N] = activation(x [M, K] * weight^T + bias), or added to out.
  virtual void matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, View out) const = 0;
  // matmul of rms_norm(x): `normed` [M, K] is room for it, undefined afterwards.
  virtual void norm_matmul(ConstView x, const float* norm_weight, float eps, View normed, const Weight& weight,
                           const Epilogue& epilogue, View out) const;
  // matmul to queries, keys and values beside each other, out [M, 3 * heads * head_dim], then rope of the first two.
  virtual void rope_matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, std::int64_t heads,
                           const RopeTable& table, View out) const;
  // out [T, K] = rows `ids` of a prepared [N, K] table. Ids are in range.
  virtual void embed(std::span<const std::int32_t> ids, const Weight& table, View out) const = 0;

  // --- rows. out may be x.
  // (x - mean) / sqrt(var + eps) * weight + bias; weight and bias [cols].
  virtual void layer_norm(ConstView x, const float* weight, const float* bias, float eps, View out) const = 0;
  // x / sqrt(mean(x^2) + eps) * weight.
  virtual void rms_norm(ConstView x, const float* weight, float eps, View out) const = 0;
  // out [T, I] = silu(gate [T, I]) * up [T, I]. out may be gate.
  virtual void silu_mul(ConstView gate, ConstView up, View out) const = 0;
  // cos and sin [rows, pairs], F32, of the angles.
  virtual void rope_table(const RopeAngles& angles, View cos, View sin) const = 0;
  // In place on x [T, heads * head_dim]: each head's (a, b) halves become (a cos - b sin, b cos + a sin).
  virtual void rope(View x, std::int64_t heads, const RopeTable& table) const = 0;
  // to.row(i) = from.row(rows[i]).
  virtual void gather_rows(ConstView from, std::span<const std::int32_t> rows, View to) const = 0;
  // out[i] = where row i of x (F32) is largest, the lowest such place; -1 where a value of the row is not finite.
  // Waits, as download() does.
  virtual Status argmax(ConstView x, std::span<std::int32_t> out) const = 0;

  // --- attention
  // softmax(scale q k^T) v inside each segment, every row seeing its whole segment.
  // q, k, v, out: [T, heads * head_dim] (any stride). Never stores scores of more than a tile: memory is O(T).
  virtual void attention(ConstView q, ConstView k, ConstView v, std::int64_t heads, float scale,
                         const Segments& segments, View out) const = 0;

  // Stores k, v [T, kv_heads * head_dim] of the step's sequences (their rows one after the other) as the tokens past..
  // of each.
  virtual void kv_write(ConstView k, ConstView v, const StepRows& step, std::int64_t layer, KvPool& pool) const = 0;
  // Causal attention of q [T, heads * head_dim] over the pool: row j of a sequence sees its tokens 0 .. past + j.
  // heads is a multiple of kv_heads; head h reads kv head h / (heads / kv_heads). kv_write of this step comes first.
  virtual void paged_attention(ConstView q, std::int64_t heads, float scale, const StepRows& step, std::int64_t layer,
                               const KvPool& pool, View out) const = 0;
  // A layer's attention from its projections qkv [T, (heads + 2 * kv_heads) * head_dim], q, k and v beside each other:
  // rope of q and k, kv_write, paged_attention. qkv is undefined afterwards.
  virtual void step_attention(View qkv, std::int64_t heads, const RopeTable& table, float scale, const StepRows& step,
                              std::int64_t layer, KvPool& pool, View out) const;
  // Block `to` becomes a copy of block `from` in every layer: two sequences that part ways inside a block.
  virtual void copy_kv_block(std::int32_t from, std::int32_t to, KvPool& pool) const = 0;
};

// prepare() of one tensor without a bias.
inline Result<std::unique_ptr<const Weight>> prepare(const Ops& ops, const TensorView& weight) {
  return ops.prepare({&weight, 1}, {});
}

// Plain loops: the reference that every other implementation is tested against. Slow.
std::unique_ptr<Ops> make_ref_ops();

// Highway kernels over a thread pool, which must outlive the Ops.
std::unique_ptr<Ops> make_cpu_ops(ThreadPool& threads);

}  // namespace chiasm
