// The cpu Ops: splits work over the thread pool and hands it to the Highway kernels.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/attention_cpu.h"
#include "kernels/gemm_cpu.h"
#include "kernels/gemm_quantised_cpu.h"
#include "kernels/host_rows.h"
#include "kernels/kv_pool_cpu.h"
#include "kernels/ops.h"
#include "kernels/quantised_weight.h"
#include "kernels/row_weight.h"
#include "kernels/rowwise_cpu.h"

namespace chiasm {
namespace {

class CpuOps final : public Ops {
 public:
  CpuOps(ThreadPool& threads, const IntegerKernel& kernel) : threads_(threads), kernel_(kernel) {}

  std::string_view name() const override { return "cpu"; }

  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const override {
    CHECK(dtype == DType::kF32);
    ASSIGN_OR_RETURN(Matrix matrix, Matrix::create(rows, cols));
    return Buffer(std::move(matrix));
  }

  void upload(std::span<const float> from, View to_view) const override {
    const MatrixView to = to_view.f32();
    CHECK(static_cast<std::int64_t>(from.size()) == to.rows * to.cols);
    for (std::int64_t i = 0; i < to.rows; ++i) copy_row(from.data() + i * to.cols, to.cols, to.row(i));
  }

  Status download(ConstView from_view, std::span<float> to) const override {
    const ConstMatrixView from = from_view.f32();
    CHECK(static_cast<std::int64_t>(to.size()) == from.rows * from.cols);
    for (std::int64_t i = 0; i < from.rows; ++i) copy_row(from.row(i), from.cols, to.data() + i * from.cols);
    return {};
  }

  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                std::span<const TensorView> biases) const override {
    ASSIGN_OR_RETURN(const WeightRows rows, WeightRows::join(weights, biases));
    ASSIGN_OR_RETURN(std::unique_ptr<const Weight> weight, RowWeight::make(rows, threads_));
    return weight;
  }

  Result<std::unique_ptr<const Weight>> quantise(std::span<const TensorView> weights,
                                                 std::span<const TensorView> biases,
                                                 Precision precision) const override {
    if (!is_integer(precision)) return Ops::quantise(weights, biases, precision);
    ASSIGN_OR_RETURN(const WeightRows rows, WeightRows::join(weights, biases));
    ASSIGN_OR_RETURN(std::unique_ptr<const Weight> packed, QuantisedWeight::quantise(rows, precision, threads_));
    return packed;
  }

  Result<std::unique_ptr<const Weight>> prepare_quantised(std::span<const QuantisedTensor> weights,
                                                          std::span<const TensorView> biases,
                                                          Precision precision) const override {
    ASSIGN_OR_RETURN(std::unique_ptr<const Weight> packed, QuantisedWeight::pack(weights, biases, precision, threads_));
    return packed;
  }

  std::string_view packed_layout() const override { return QuantisedWeight::kLayout; }
  Result<std::unique_ptr<const Weight>> adopt(const PackedMatrix& packed,
                                              std::span<const TensorView> biases) const override {
    ASSIGN_OR_RETURN(std::unique_ptr<const Weight> weight, QuantisedWeight::adopt(packed, biases));
    return weight;
  }

  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override { return KvPoolCpu::make(shape); }

  void matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, View out) const override {
    bool gated = false;  // by the product; where it cannot, in another pass
    if (weight.precision() == Precision::kExact) {
      gemm_cpu(threads_, x.f32(), static_cast<const RowWeight&>(weight), epilogue, out.f32());
    } else {
      const auto& quantised = static_cast<const QuantisedWeight&>(weight);
      Epilogue own = epilogue;
      own.gated = gated = epilogue.gated && gates_in_one_pass(quantised);
      gemm_quantised_cpu(threads_, kernel_, x.f32(), quantised, own, out.f32());
    }
    if (epilogue.gated && !gated) {
      const std::int64_t half = out.cols / 2;
      silu_mul(out.col_range(0, half), out.col_range(half, half), out.col_range(0, half));
    }
  }

  void embed(std::span<const std::int32_t> ids, const Weight& table, View out_view) const override {
    const MatrixView out = out_view.f32();
    CHECK(static_cast<std::int64_t>(ids.size()) == out.rows && out.cols == table.in_features());
    for (const std::int32_t id : ids) CHECK(id >= 0 && id < table.out_features());
    over_rows(out.rows, out.cols, [&](std::int64_t first, std::int64_t count) {
      for (std::int64_t i = first; i < first + count; ++i) {
        if (table.precision() != Precision::kExact) {
          static_cast<const QuantisedWeight&>(table).widen(ids[i], out.row(i));
          continue;
        }
        for (std::int64_t k = 0; k < out.cols; ++k) out.row(i)[k] = static_cast<const RowWeight&>(table).at(ids[i], k);
      }
    });
  }

  void layer_norm(ConstView x_view, const float* weight, const float* bias, float eps, View out_view) const override {
    const ConstMatrixView x = x_view.f32();
    const MatrixView out = out_view.f32();
    CHECK(same_shape(x, out));
    over_rows(x.rows, x.cols, [&](std::int64_t first, std::int64_t count) {
      layer_norm_cpu(x.row_range(first, count), weight, bias, eps, out.row_range(first, count));
    });
  }

  void rms_norm(ConstView x_view, const float* weight, float eps, View out_view) const override {
    const ConstMatrixView x = x_view.f32();
    const MatrixView out = out_view.f32();
    CHECK(same_shape(x, out));
    over_rows(x.rows, x.cols, [&](std::int64_t first, std::int64_t count) {
      rms_norm_cpu(x.row_range(first, count), weight, eps, out.row_range(first, count));
    });
  }

  void silu_mul(ConstView gate_view, ConstView up_view, View out_view) const override {
    const ConstMatrixView gate = gate_view.f32(), up = up_view.f32();
    const MatrixView out = out_view.f32();
    CHECK(same_shape(gate, up) && same_shape(gate, out));
    over_rows(gate.rows, 4 * gate.cols, [&](std::int64_t first, std::int64_t count) {
      silu_mul_cpu(gate.row_range(first, count), up.row_range(first, count), out.row_range(first, count));
    });
  }

  void rope_table(const RopeAngles& angles, View cos, View sin) const override {
    rope_table_host(angles, cos.f32(), sin.f32());
  }

  void rope(View x_view, std::int64_t heads, const RopeTable& table) const override {
    const MatrixView x = x_view.f32();
    const ConstMatrixView cos = table.cos.f32(), sin = table.sin.f32();
    CHECK(same_shape(cos, sin) && cos.rows == x.rows && x.cols == heads * 2 * cos.cols);
    over_rows(x.rows, x.cols, [&](std::int64_t first, std::int64_t count) {
      rope_cpu(x.row_range(first, count), heads, cos.row_range(first, count), sin.row_range(first, count));
    });
  }

  void gather_rows(ConstView from_view, std::span<const std::int32_t> rows, View to_view) const override {
    gather_rows_host(from_view.f32(), rows, to_view.f32());
  }

  Status argmax(ConstView x, std::span<std::int32_t> out) const override {
    argmax_host(x.f32(), out);
    return {};
  }

  void attention(ConstView q_view, ConstView k_view, ConstView v_view, std::int64_t heads, float scale,
                 const Segments& segments, View out_view) const override {
    const ConstMatrixView q = q_view.f32(), k = k_view.f32(), v = v_view.f32();
    const MatrixView out = out_view.f32();
    const std::span<const std::int64_t> cu_seqlens = segments.cu_seqlens();
    CHECK(same_shape(q, k) && same_shape(q, v) && same_shape(q, out) && q.cols % heads == 0);
    CHECK(!cu_seqlens.empty() && cu_seqlens.front() == 0 && cu_seqlens.back() == q.rows);
    for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
      const std::int64_t first = cu_seqlens[s], count = cu_seqlens[s + 1] - first;
      attend_segment(q.row_range(first, count), k.row_range(first, count), v.row_range(first, count), heads, scale,
                     out.row_range(first, count));
    }
  }

  void kv_write(ConstView k_view, ConstView v_view, const StepRows& step, std::int64_t layer,
                KvPool& pool) const override {
    const ConstMatrixView k = k_view.f32(), v = v_view.f32();
    auto& blocks = static_cast<KvPoolCpu&>(pool);
    const std::int64_t head_dim = pool.shape().head_dim, width = padded_head_dim(head_dim);
    CHECK(same_shape(k, v) && k.cols == pool.shape().kv_heads * head_dim);
    std::int64_t row = 0;
    for (const SequenceRows& sequence : step.sequences()) {
      for (std::int64_t token = sequence.past; token < sequence.past + sequence.count; ++token, ++row) {
        const std::int32_t block = sequence.block_table[token / kKvBlock];
        const std::int64_t lane = token % kKvBlock;
        for (std::int64_t h = 0; h < pool.shape().kv_heads; ++h) {
          float* keys = blocks.keys(layer, block, h) + lane;
          const float* key = k.row(row) + h * head_dim;
          for (std::int64_t d = 0; d < head_dim; ++d) keys[d * kKvBlock] = key[d];
          copy_row(v.row(row) + h * head_dim, head_dim, blocks.values(layer, block, h) + lane * width);
        }
      }
    }
    CHECK(row == k.rows);
  }

  void paged_attention(ConstView q_view, std::int64_t heads, float scale, const StepRows& step, std::int64_t layer,
                       const KvPool& pool, View out_view) const override {
    const ConstMatrixView q = q_view.f32();
    const MatrixView out = out_view.f32();
    const auto& blocks = static_cast<const KvPoolCpu&>(pool);
    const std::int64_t kv_heads = pool.shape().kv_heads, head_dim = pool.shape().head_dim, group = heads / kv_heads;
    CHECK(same_shape(q, out) && q.cols == heads * head_dim && heads % kv_heads == 0);

    // A task: up to kQueryTile (token, head) pairs of one sequence that share a kv head.
    struct Task {
      const SequenceRows* sequence;
      std::int64_t first_row, kv_head, begin, end;
    };
    std::vector<Task> tasks;
    std::int64_t row = 0, work = 0;
    for (const SequenceRows& sequence : step.sequences()) {
      for (std::int64_t h = 0; h < kv_heads; ++h)
        for (std::int64_t begin = 0; begin < sequence.count * group; begin += kQueryTile)
          tasks.push_back({&sequence, row, h, begin, std::min(sequence.count * group, begin + kQueryTile)});
      row += sequence.count;
      work += sequence.count * (sequence.past + sequence.count) * q.cols;
    }
    CHECK(row == q.rows);
    run(static_cast<std::int64_t>(tasks.size()), work, [&](std::int64_t i, int) {
      const Task& task = tasks[i];
      QueryTile tile;
      for (std::int64_t pair = task.begin; pair < task.end; ++pair) {
        const std::int64_t token = pair / group, head = task.kv_head * group + pair % group;
        tile.query[tile.count] = q.row(task.first_row + token) + head * head_dim;
        tile.out[tile.count] = out.row(task.first_row + token) + head * head_dim;
        tile.visible[tile.count++] = task.sequence->past + token + 1;
      }
      const std::int64_t visible = task.sequence->past + (task.end - 1) / group + 1;
      std::vector<KeyValueBlock> keys(static_cast<std::size_t>((visible + kKvBlock - 1) / kKvBlock));
      for (std::size_t b = 0; b < keys.size(); ++b)
        keys[b] = blocks.at(layer, task.sequence->block_table[b], task.kv_head);
      attend_cpu(tile, keys, head_dim, scale);
    });
  }

  void copy_kv_block(std::int32_t from, std::int32_t to, KvPool& pool) const override {
    auto& blocks = static_cast<KvPoolCpu&>(pool);
    for (std::int64_t layer = 0; layer < pool.shape().layers; ++layer)
      std::memcpy(blocks.keys(layer, to, 0), blocks.keys(layer, from, 0),
                  static_cast<std::size_t>(blocks.block_floats()) * sizeof(float));
  }

 private:
  static void copy_row(const float* from, std::int64_t count, float* to) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
  }

  // Runs tasks on the pool when `work` (about one multiply-add a unit) is worth waking threads for.
  template <class Task>
  void run(std::int64_t count, std::int64_t work, const Task& task) const {
    constexpr std::int64_t kWorthThreads = 1 << 17;
    if (work < kWorthThreads) {
      for (std::int64_t i = 0; i < count; ++i) task(i, 0);
    } else {
      threads_.parallel_for(count, task);
    }
  }

  template <class Rows>
  void over_rows(std::int64_t rows, std::int64_t cost_per_row, const Rows& body) const {
    constexpr std::int64_t kChunk = 32;
    run((rows + kChunk - 1) / kChunk, rows * cost_per_row,
        [&](std::int64_t chunk, int) { body(chunk * kChunk, std::min(kChunk, rows - chunk * kChunk)); });
  }

  // Every row of one segment sees the whole segment. Keys and values are packed for a few heads at a time: scratch
  // grows with the rows of the segment, and stays small beside the activations.
  void attend_segment(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, std::int64_t heads, float scale,
                      MatrixView out) const {
    const std::int64_t head_dim = q.cols / heads, width = padded_head_dim(head_dim), rows = q.rows;
    const std::int64_t blocks = (rows + kKvBlock - 1) / kKvBlock, tiles = (rows + kQueryTile - 1) / kQueryTile;
    const std::int64_t block_floats = (head_dim + width) * kKvBlock;
    if (rows == 0) return;
    constexpr std::int64_t kScratchFloats = 1 << 20;
    const std::int64_t group = std::clamp<std::int64_t>(kScratchFloats / (blocks * block_floats), 1, heads);
    // Kept from call to call: new memory would be cleared each time.
    static thread_local Matrix scratch;
    if (scratch.size() < group * blocks * block_floats) scratch = Matrix(group * blocks, block_floats);
    float* const packed = scratch.data();
    for (std::int64_t h0 = 0; h0 < heads; h0 += group) {
      const std::int64_t here = std::min(group, heads - h0);
      run(here * blocks, here * rows * head_dim, [&](std::int64_t i, int) {
        const std::int64_t h = h0 + i / blocks, first = i % blocks * kKvBlock, count = std::min(kKvBlock, rows - first);
        float* to = packed + i * block_floats;
        pack_block_cpu(k.row_range(first, count).col_range(h * head_dim, head_dim),
                       v.row_range(first, count).col_range(h * head_dim, head_dim), to, to + head_dim * kKvBlock);
      });
      run(here * tiles, here * rows * rows * head_dim, [&](std::int64_t i, int) {
        const std::int64_t head = i / tiles, first = i % tiles * kQueryTile;
        std::vector<KeyValueBlock> keys(static_cast<std::size_t>(blocks));
        for (std::int64_t b = 0; b < blocks; ++b) {
          const float* at = packed + (head * blocks + b) * block_floats;
          keys[b] = {at, at + head_dim * kKvBlock};
        }
        QueryTile tile;
        for (std::int64_t row = first; row < std::min(rows, first + kQueryTile); ++row) {
          tile.query[tile.count] = q.row(row) + (h0 + head) * head_dim;
          tile.out[tile.count] = out.row(row) + (h0 + head) * head_dim;
          tile.visible[tile.count++] = rows;
        }
        attend_cpu(tile, keys, head_dim, scale);
      });
    }
  }

  ThreadPool& threads_;
  const IntegerKernel& kernel_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(ThreadPool& threads) { return make_cpu_ops(threads, *integer_kernels().front()); }

std::unique_ptr<Ops> make_cpu_ops(ThreadPool& threads, const IntegerKernel& kernel) {
  return std::make_unique<CpuOps>(threads, kernel);
}

}  // namespace chiasm
