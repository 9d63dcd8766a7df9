#include "kernels/ops_cuda.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "kernels/collective_cuda.h"
#include "kernels/device_cuda.h"
#include "kernels/host_rows.h"
#include "kernels/kernels_cuda.h"
#include "kernels/memory_cuda.h"
#include "kernels/ops_group.h"
#include "kernels/products_cuda.h"
#include "kernels/segment_attention_cuda.h"
#include "kernels/stream_cpu.h"
#include "kernels/wide_matmul_cuda.h"

namespace chiasm {
namespace {

bool aligned_rows(ConstView v) { return aligned_rows(cuda_view(v)); }

// Operations as a graph of the driver's, which launches it in one call.
class CudaGraph final : public Recording {
 public:
  static Result<std::unique_ptr<const Recording>> record(const CudaDevice& device, const std::function<void()>& body) {
    const cudaStream_t stream = device.stream();
    RETURN_IF_ERROR(device.status());  // of what came before
    device.note(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
    body();
    cudaGraph_t graph = nullptr;
    device.note(cudaStreamEndCapture(stream, &graph), "recording");
    std::unique_ptr<CudaGraph> out(new CudaGraph);
    if (graph != nullptr) {
      // Another card of a group may still be recording in this thread, which forbids it calls like these.
      cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
      cudaThreadExchangeStreamCaptureMode(&mode);
      device.note(cudaGraphInstantiate(&out->executable_, graph, 0), "recording");
      cudaGraphDestroy(graph);
      cudaThreadExchangeStreamCaptureMode(&mode);
    }
    RETURN_IF_ERROR(device.status());
    return std::unique_ptr<const Recording>(std::move(out));
  }
  ~CudaGraph() override {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  cudaGraphExec_t get() const { return executable_; }

 private:
  CudaGraph() = default;
  cudaGraphExec_t executable_ = nullptr;
};

class CudaOps final : public Ops {
 public:
  CudaOps(ThreadPool& threads, std::unique_ptr<CudaDevice> device, std::unique_ptr<CudaProducts> products)
      : threads_(threads), device_(std::move(device)), products_(std::move(products)) {}
  // The stream may still use what the products keep.
  ~CudaOps() override { (void)device_->wait(); }

  const CudaDevice& device() const { return *device_; }

  std::string_view name() const override { return "cuda"; }
  DType activations() const override { return DType::kBF16; }
  std::int64_t filling_rows() const override { return 8192; }

  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const override {
    return device_->allocate(rows, cols, dtype);
  }

  void upload(std::span<const float> from, View to) const override {
    CHECK(static_cast<std::int64_t>(from.size()) == to.rows * to.cols);
    const bool whole = to.stride == to.cols || to.rows <= 1;
    if (whole) {
      send(from, to);
      return;
    }
    auto copy = device_->allocate(to.rows, to.cols, to.dtype);
    if (!copy) return device_->note(copy.error().message);
    send(from, copy->view());
    check(copy_rows_cuda(cuda_view(std::as_const(*copy).view()), nullptr, cuda_view(to), stream()), "upload");
  }

  Result<Operand> bring(ConstMatrixView host) const override {
    Operand out;
    ASSIGN_OR_RETURN(out.copy, device_->allocate(host.rows, host.cols, DType::kBF16));
    out.view = std::as_const(out.copy).view();
    CHECK(host.stride == host.cols);
    send({host.data, static_cast<std::size_t>(host.rows * host.cols)}, out.copy.view());
    return out;
  }

  Status download(ConstView from, std::span<float> to) const override {
    CHECK(static_cast<std::int64_t>(to.size()) == from.rows * from.cols);
    const auto bytes = std::as_writable_bytes(to);
    if (from.dtype == DType::kF32 && (from.stride == from.cols || from.rows <= 1))
      return device_->receive(from.data, bytes);
    ASSIGN_OR_RETURN(Buffer copy, device_->allocate(from.rows, from.cols, DType::kF32));
    check(copy_rows_cuda(cuda_view(from), nullptr, cuda_view(copy.view()), stream()), "download");
    return device_->receive(copy.view().data, bytes);
  }

  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                std::span<const TensorView> biases) const override {
    return CudaWeight::make(*device_, weights, biases);
  }
  Result<std::unique_ptr<const Weight>> quantise(std::span<const TensorView> weights,
                                                 std::span<const TensorView> biases,
                                                 Precision precision) const override {
    return CudaWeight::quantise(*device_, threads_, weights, biases, precision);
  }
  Result<std::unique_ptr<const Weight>> prepare_quantised(std::span<const QuantisedTensor> weights,
                                                          std::span<const TensorView> biases,
                                                          Precision precision) const override {
    return CudaWeight::make(*device_, weights, biases, precision);
  }

  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override {
    return CudaKvPool::make(*device_, shape);
  }
  std::uint64_t kv_block_bytes(const KvShape& shape) const override { return Ops::kv_block_bytes(shape) / 2; }
  std::optional<std::uint64_t> free_for_kv() const override { return device_->free_memory(); }

  Result<std::unique_ptr<const StepRows>> make_step(std::span<const SequenceRows> sequences, std::int64_t heads,
                                                    const KvShape& shape) const override {
    return CudaStepRows::make(*device_, sequences, heads, shape);
  }
  Result<bool> renew_step(std::span<const SequenceRows> sequences, const StepTokens& tokens, std::int64_t heads,
                          const KvShape& shape, std::unique_ptr<const StepRows>& step) const override {
    CHECK(tokens.ids.size() == sequences.size());
    check_rope_angles(tokens.angles, static_cast<std::int64_t>(sequences.size()),
                      static_cast<std::int64_t>(tokens.angles.axis.size()));
    return CudaStepRows::renew(*device_, sequences, tokens, heads, shape, step);
  }
  Result<std::unique_ptr<const Segments>> make_segments(std::span<const std::int64_t> cu_seqlens) const override {
    return CudaSegments::make(*device_, cu_seqlens);
  }

  bool records() const override { return true; }
  Result<std::unique_ptr<const Recording>> record(const std::function<void()>& body) const override {
    return CudaGraph::record(*device_, body);
  }
  void replay(const Recording& recording) const override {
    check(cudaGraphLaunch(static_cast<const CudaGraph&>(recording).get(), stream()), "replaying a recording");
  }

  void begin_step(const StepRows& step, const Weight& table, View x, View cos, View sin) const override {
    const auto& lists = static_cast<const CudaStepRows&>(step);
    const auto& w = static_cast<const CudaWeight&>(table);
    CHECK(x.rows == lists.rows() && x.cols == w.in_features() && same_shape(cos, sin) && cos.rows == x.rows);
    CHECK(cos.stride == cos.cols && sin.stride == sin.cols && lists.pairs() == cos.cols);
    if (w.quantised()) {
      check(dequantise_cuda(w.matrix(), 0, lists.ids(), cuda_view(x), stream()), "embed");
      check(rope_table_cuda(lists.angles(), cuda_view(cos), cuda_view(sin), stream()), "rope_table");
    } else {
      check(embed_and_turn_cuda(cuda_view(w.values()), lists.ids(), cuda_view(x), lists.angles(), cuda_view(cos),
                                cuda_view(sin), stream()),
            "embed");
    }
  }
  void end_step(ConstView logits, const StepRows& step) const override {
    const auto& lists = static_cast<const CudaStepRows&>(step);
    CHECK(logits.dtype == DType::kF32 && logits.rows == lists.rows());
    check(argmax_cuda(cuda_view(logits), lists.best_scratch(), lists.best().data(), stream()), "argmax");
  }
  Status likeliest(const StepRows& step, std::span<std::int32_t> out) const override {
    const auto& lists = static_cast<const CudaStepRows&>(step);
    CHECK(static_cast<std::int64_t>(out.size()) == lists.rows());
    RETURN_IF_ERROR(device_->wait());
    std::copy_n(lists.best().begin(), out.size(), out.begin());
    return {};
  }

  void matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, View out) const override {
    const auto& w = static_cast<const CudaWeight&>(weight);
    CHECK(x.cols == w.in_features() && out.cols == w.out_features() && out.rows == x.rows);
    CHECK(x.dtype == DType::kBF16);
    if (x.rows == 0) return;
    if (can_be_skinny(x, epilogue, out) && aligned_rows(x)) {
      check(skinny_matmul_cuda(skinny(x, w, epilogue), cuda_view(out), stream()), "matmul");
      return;
    }
    multiply(x, w, epilogue, out);
    if (epilogue.gated) {
      const std::int64_t half = out.cols / 2;
      silu_mul(out.col_range(0, half), out.col_range(half, half), out.col_range(0, half));
    }
  }

  void norm_matmul(ConstView x, const float* norm_weight, float eps, View normed, const Weight& weight,
                   const Epilogue& epilogue, View out) const override {
    const auto& w = static_cast<const CudaWeight&>(weight);
    if (x.rows > kNormedRows || x.rows == 0 || x.cols > kNormedDepth || x.dtype != DType::kF32 || !aligned_rows(x) ||
        !can_be_skinny(x, epilogue, out))
      return Ops::norm_matmul(x, norm_weight, eps, normed, weight, epilogue, out);
    CHECK(x.cols == w.in_features() && out.cols == w.out_features() && out.rows == x.rows);
    SkinnyProduct product = skinny(x, w, epilogue);
    product.norm_weight = norm_weight;
    product.eps = eps;
    check(skinny_matmul_cuda(product, cuda_view(out), stream()), "matmul");
  }

  void rope_matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, std::int64_t heads,
                   const RopeTable& table, View out) const override {
    const auto& w = static_cast<const CudaWeight&>(weight);
    const std::int64_t half = table.cos.cols;
    if (!is_integer(w.precision()) && epilogue.steady && epilogue.activation == Activation::kNone &&
        half * 2 == kTurnedHead && out.cols == 3 * heads * kTurnedHead && table.cos.rows == x.rows &&
        same_shape(table.cos, table.sin) && table.cos.stride == half && table.sin.stride == half &&
        x.dtype == DType::kBF16 && out.rows == x.rows) {
      WideProduct product = wide(x, w.values().data, w.bias(), epilogue);
      product.cos = reinterpret_cast<const float*>(table.cos.data);
      product.sin = reinterpret_cast<const float*>(table.sin.data);
      product.turned = 2 * heads * kTurnedHead;
      Buffer rows;
      if (w.precision() == Precision::kFp8) {
        rows = in_fp8(x, w, product);
        if (rows.size() == 0) return;
      }
      if (can_multiply_wide_cuda(product, cuda_view(out)))
        return check(wide_matmul_cuda(product, cuda_view(out), device_->multiprocessors(), stream()), "matmul");
    }
    Ops::rope_matmul(x, weight, epilogue, heads, table, out);
  }

  void embed(std::span<const std::int32_t> ids, const Weight& table, View out) const override {
    const auto& w = static_cast<const CudaWeight&>(table);
    CHECK(static_cast<std::int64_t>(ids.size()) == out.rows && out.cols == w.in_features());
    for (const std::int32_t id : ids) CHECK(id >= 0 && id < w.out_features());
    if (!w.quantised()) return copy_rows(w.values(), ids, out);
    const auto sent = CudaInts::send(*device_, ids);
    if (!sent) return device_->note(sent.error().message);
    check(dequantise_cuda(w.matrix(), 0, sent->at(0), cuda_view(out), stream()), "embed");
  }

  void layer_norm(ConstView x, const float* weight, const float* bias, float eps, View out) const override {
    CHECK(same_shape(x, out));
    check(layer_norm_cuda(cuda_view(x), weight, bias, eps, cuda_view(out), stream()), "layer_norm");
  }

  void rms_norm(ConstView x, const float* weight, float eps, View out) const override {
    CHECK(same_shape(x, out));
    check(rms_norm_cuda(cuda_view(x), weight, eps, cuda_view(out), stream()), "rms_norm");
  }

  void silu_mul(ConstView gate, ConstView up, View out) const override {
    CHECK(same_shape(gate, up) && same_shape(gate, out) && gate.dtype == up.dtype && gate.dtype == out.dtype);
    check(silu_mul_cuda(cuda_view(gate), cuda_view(up), cuda_view(out), stream()), "silu_mul");
  }

  void rope_table(const RopeAngles& angles, View cos, View sin) const override {
    CHECK(same_shape(cos, sin) && cos.dtype == DType::kF32 && sin.dtype == DType::kF32);
    CHECK(cos.stride == cos.cols && sin.stride == sin.cols);
    check_rope_angles(angles, cos.rows, cos.cols);
    std::vector<std::int32_t> ints;
    for (const auto& positions : angles.positions) ints.insert(ints.end(), positions.begin(), positions.end());
    const auto axis_at = static_cast<std::int64_t>(ints.size());
    ints.insert(ints.end(), angles.axis.begin(), angles.axis.end());
    for (const float frequency : angles.frequency) ints.push_back(std::bit_cast<std::int32_t>(frequency));
    const auto sent = CudaInts::send(*device_, ints);
    if (!sent) return device_->note(sent.error().message);
    const RopeAnglesCuda there{.positions = sent->at(0),
                               .axis = sent->at(axis_at),
                               .frequency = reinterpret_cast<const float*>(sent->at(axis_at + cos.cols))};
    check(rope_table_cuda(there, cuda_view(cos), cuda_view(sin), stream()), "rope_table");
  }

  void rope(View x, std::int64_t heads, const RopeTable& table) const override {
    CHECK(same_shape(table.cos, table.sin) && table.cos.rows == x.rows && x.cols == heads * 2 * table.cos.cols);
    CHECK(table.cos.stride == table.cos.cols && table.sin.stride == table.sin.cols);
    check(rope_cuda(cuda_view(x), heads, cuda_view(table.cos), cuda_view(table.sin), stream()), "rope");
  }

  void gather_rows(ConstView from, std::span<const std::int32_t> rows, View to) const override {
    CHECK(static_cast<std::int64_t>(rows.size()) == to.rows && from.cols == to.cols);
    for (const std::int32_t row : rows) CHECK(row >= 0 && row < from.rows);
    copy_rows(from, rows, to);
  }

  Status argmax(ConstView x, std::span<std::int32_t> out) const override {
    CHECK(x.dtype == DType::kF32 && static_cast<std::int64_t>(out.size()) == x.rows);
    if (out.empty()) return device_->status();
    const std::int64_t parts = argmax_scratch(x.rows);
    ASSIGN_OR_RETURN(Buffer scratch, device_->allocate(1, 2 * parts + x.rows, DType::kF32));
    auto* const floats = reinterpret_cast<float*>(scratch.view().data);
    auto* const best = reinterpret_cast<std::int32_t*>(floats + 2 * parts);
    check(argmax_cuda(cuda_view(x), floats, best, stream()), "argmax");
    return device_->receive(reinterpret_cast<const std::byte*>(best), std::as_writable_bytes(out));
  }

  void attention(ConstView q, ConstView k, ConstView v, std::int64_t heads, float scale, const Segments& segments,
                 View out) const override {
    CHECK(same_shape(q, k) && same_shape(q, v) && same_shape(q, out) && q.cols % heads == 0);
    CHECK(segments.cu_seqlens().back() == q.rows);
    for (const ConstView& view : {q, k, v, ConstView(out)}) CHECK(view.dtype == DType::kBF16);
    const auto& lists = static_cast<const CudaSegments&>(segments);
    const CudaView queries = cuda_view(q), keys = cuda_view(k), values = cuda_view(v), to = cuda_view(out);
    check(can_attend_segments_cuda(queries, keys, values, to, heads)
              ? segment_attention_cuda(queries, keys, values, heads, scale, lists.tiles(), lists.tile_count(), to,
                                       device_->multiprocessors(), stream())
              : attention_cuda(queries, keys, values, heads, scale, lists.tiles(), lists.tile_count(), to, stream()),
          "attention");
  }

  void kv_write(ConstView k, ConstView v, const StepRows& step, std::int64_t layer, KvPool& pool) const override {
    CHECK(same_shape(k, v) && k.cols == pool.shape().kv_heads * pool.shape().head_dim);
    CHECK(k.dtype == DType::kBF16 && v.dtype == DType::kBF16);
    const auto& lists = static_cast<const CudaStepRows&>(step);
    check(kv_write_cuda(cuda_view(k), cuda_view(v), lists.slots(), pool.shape().kv_heads,
                        static_cast<const CudaKvPool&>(pool).layer(layer), stream()),
          "kv_write");
  }

  void paged_attention(ConstView q, std::int64_t heads, float scale, const StepRows& step, std::int64_t layer,
                       const KvPool& pool, View out) const override {
    const std::int64_t kv_heads = pool.shape().kv_heads, head_dim = pool.shape().head_dim;
    CHECK(same_shape(q, out) && q.cols == heads * head_dim && heads % kv_heads == 0);
    CHECK(q.dtype == DType::kBF16 && out.dtype == DType::kBF16);
    const auto& lists = static_cast<const CudaStepRows&>(step);
    const KvLayout layout = static_cast<const CudaKvPool&>(pool).layer(layer);
    if (const WideTiles tiles = lists.tiles();
        tiles.count > 0 && can_attend_wide_paged_cuda(cuda_view(q), cuda_view(out), heads)) {
      const Buffer packed = room_for(tiles, kv_heads, head_dim);
      if (packed.size() == 0) return;
      check(wide_paged_attention_cuda(cuda_view(q), heads, kv_heads, scale, tiles, lists.tables(), layout,
                                      packed_data(packed), cuda_view(out), stream()),
            "paged_attention");
    } else {
      check(paged_attention_cuda(cuda_view(q), heads, kv_heads, scale, tiles.queries, tiles.count, lists.tables(),
                                 layout, cuda_view(out), stream()),
            "paged_attention");
    }
    if (lists.decode().count == 0) return;
    CHECK(aligned_rows(q));
    check(decode_attention_cuda({.q = cuda_view(q), .heads = heads, .kv_heads = kv_heads}, lists.decode(), layout,
                                scale, cuda_view(out), stream()),
          "decode attention");
  }

  void step_attention(View qkv, std::int64_t heads, const RopeTable& table, float scale, const StepRows& step,
                      std::int64_t layer, KvPool& pool, View out) const override {
    const std::int64_t kv_heads = pool.shape().kv_heads, half = pool.shape().head_dim / 2;
    if (half % 8 != 0 || qkv.dtype != DType::kBF16 || !aligned_rows(qkv) || table.cos.stride != half ||
        table.sin.stride != half)
      return Ops::step_attention(qkv, heads, table, scale, step, layer, pool, out);
    CHECK(table.cos.rows == qkv.rows && table.sin.rows == qkv.rows && table.cos.cols == half);
    CHECK(out.dtype == DType::kBF16 && out.rows == qkv.rows && out.cols == heads * 2 * half);
    const StepProjections parts(qkv, heads, pool.shape());
    const auto& lists = static_cast<const CudaStepRows&>(step);
    const KvLayout layout = static_cast<CudaKvPool&>(pool).layer(layer);
    const auto* const cos = reinterpret_cast<const float*>(table.cos.data);
    const auto* const sin = reinterpret_cast<const float*>(table.sin.data);
    if (lists.decode().count == qkv.rows) {
      const DecodeQueries queries{.q = cuda_view(parts.q),
                                  .heads = heads,
                                  .kv_heads = kv_heads,
                                  .k = parts.k.data,
                                  .v = parts.v.data,
                                  .cos = cos,
                                  .sin = sin};
      return check(decode_attention_cuda(queries, lists.decode(), layout, scale, cuda_view(out), stream()),
                   "decode attention");
    }
    check(turn_and_write_cuda(cuda_view(parts.q), cuda_view(parts.k), cuda_view(parts.v), kv_heads, cos, sin,
                              lists.slots(), layout, stream()),
          "kv_write");
    paged_attention(parts.q, heads, scale, step, layer, pool, out);
  }

  void copy_kv_block(std::int32_t from, std::int32_t to, KvPool& pool) const override {
    static_cast<CudaKvPool&>(pool).copy_block(from, to);
  }

 private:
  cudaStream_t stream() const { return device_->stream(); }
  void check(cudaError_t error, const char* what) const { device_->note(error, what); }

  // For packed keys and values; empty where there is none, which is noted. Freed in the stream's order: the next
  // layer's call gets the same memory.
  Buffer room_for(const WideTiles& tiles, std::int64_t heads, std::int64_t head_dim) const {
    auto room = device_->allocate(tiles.key_count * heads, wide_packed_columns(head_dim), DType::kBF16);
    if (room) return std::move(*room);
    device_->note(room.error().message);
    return {};
  }
  static void* packed_data(const Buffer& room) { return const_cast<std::byte*>(room.view().data); }

  // But for x's rows, which must be aligned.
  static bool can_be_skinny(ConstView x, const Epilogue& epilogue, View out) {
    return x.rows <= kSkinnyRows && x.cols % 8 == 0 && aligned_rows(out) && !epilogue.steady;
  }
  static SkinnyProduct skinny(ConstView x, const CudaWeight& w, const Epilogue& epilogue) {
    return {.x = cuda_view(x),
            .weight = w.matrix(),
            .bias = w.bias(),
            .activation = static_cast<int>(epilogue.activation),
            .add_to_out = epilogue.add_to_out,
            .gated = epilogue.gated};
  }

  static WideProduct wide(ConstView x, const std::byte* weight, const float* bias, const Epilogue& epilogue) {
    return {.x = cuda_view(x),
            .weight = weight,
            .bias = bias,
            .activation = static_cast<int>(epilogue.activation),
            .add_to_out = epilogue.add_to_out};
  }

  // Makes the product one of e4m3: x's rows in it lie in what is given back, which is empty where there is no memory
  // (it is noted).
  Buffer in_fp8(ConstView x, const CudaWeight& w, WideProduct& product) const {
    const CudaMatrix weight = w.matrix();
    auto room = device_->allocate(x.rows, weight.row_bytes / 4 + 1, DType::kF32);
    if (!room) {
      device_->note(room.error().message);
      return {};
    }
    std::byte* const codes = room->view().data;
    const Fp8Rows rows{.codes = codes,
                       .scales = reinterpret_cast<float*>(codes + x.rows * weight.row_bytes),
                       .rows = x.rows,
                       .k = x.cols,
                       .row_bytes = weight.row_bytes};
    check(round_rows_cuda(cuda_view(x), rows, stream()), "rounding rows");
    product.x = {codes, x.rows, x.cols, weight.row_bytes, false};
    product.row_scales = rows.scales;
    product.scales = static_cast<const float*>(weight.scales);
    return std::move(*room);
  }

  void multiply_fp8(ConstView x, const CudaWeight& w, const Epilogue& epilogue, View out) const {
    WideProduct product = wide(x, w.values().data, w.bias(), epilogue);
    const Buffer room = in_fp8(x, w, product);
    if (room.size() == 0) return;
    const CudaView to = cuda_view(out);
    if (can_multiply_wide_cuda(product, to))
      return check(wide_matmul_cuda(product, to, device_->multiprocessors(), stream()), "matmul");
    const Fp8Rows rows{.codes = product.x.data,
                       .scales = const_cast<float*>(product.row_scales),
                       .rows = x.rows,
                       .k = x.cols,
                       .row_bytes = product.x.stride};
    check(plain_fp8_matmul_cuda(rows, w.matrix(), w.bias(), product.activation, epilogue.add_to_out, to, stream()),
          "matmul");
  }

  // Many rows. Integers become BF16 first, in slices of outputs that the weight's shape says: they change no row's
  // bits.
  void multiply(ConstView x, const CudaWeight& w, const Epilogue& epilogue, View out) const {
    if (w.precision() == Precision::kFp8) return multiply_fp8(x, w, epilogue, out);
    if (!w.quantised()) return multiply(x, {w.values().data, w.bias(), w.bias_for(out.dtype)}, epilogue, out);
    constexpr std::int64_t kSlice = std::int64_t{32} << 20;  // values
    const std::int64_t slice = std::max<std::int64_t>(16, kSlice / w.in_features() / 16 * 16);
    for (std::int64_t first = 0; first < w.out_features(); first += slice) {
      const std::int64_t count = std::min(slice, w.out_features() - first);
      const auto values = device_->allocate(count, w.in_features(), DType::kBF16);
      if (!values) return device_->note(values.error().message);
      check(dequantise_cuda(w.matrix(), first, nullptr, cuda_view(values->view()), stream()), "dequantising");
      const float* const bias = w.bias() == nullptr ? nullptr : w.bias() + first;
      multiply(x, {values->view().data, bias, w.bias_for(out.dtype, first), true}, epilogue,
               out.col_range(first, count));
    }
  }

  struct Bf16Weight {
    const std::byte* values = nullptr;
    const float* bias = nullptr;
    const void* own_bias = nullptr;  // the same in the dtype of the result
    bool fresh = false;              // a kernel in front writes the values
  };
  // By own kernels where a row's bits matter, else through cuBLASLt where it takes the product.
  void multiply(ConstView x, const Bf16Weight& weight, const Epilogue& epilogue, View out) const {
    const auto activation = static_cast<int>(epilogue.activation);
    const CudaView from = cuda_view(x), to = cuda_view(out);
    if (epilogue.steady) {
      WideProduct product = wide(x, weight.values, weight.bias, epilogue);
      product.fresh_weight = weight.fresh;
      if (can_multiply_wide_cuda(product, to))
        return check(wide_matmul_cuda(product, to, device_->multiprocessors(), stream()), "matmul");
    }
    if (x.cols % 8 == 0 && aligned_rows(x) && aligned_rows(out) && (activation == 0 || !epilogue.add_to_out)) {
      const bool split = !epilogue.steady && x.rows <= kFewRows;
      const auto done =
          products_->multiply(from, weight.values, weight.own_bias, epilogue.add_to_out, split, to, stream());
      if (!done) return device_->note(done.error().message);
      if (*done) {
        if (activation != 0) check(activate_cuda(to, activation, stream()), "activation");
        return;
      }
    }
    check(plain_matmul_cuda(from, weight.values, weight.bias, activation, epilogue.add_to_out, to, stream()), "matmul");
  }

  void copy_rows(ConstView from, std::span<const std::int32_t> rows, View to) const {
    if (rows.empty()) return;
    const auto sent = CudaInts::send(*device_, rows);
    if (!sent) return device_->note(sent.error().message);
    check(copy_rows_cuda(cuda_view(from), sent->at(0), cuda_view(to), stream()), "gathering rows");
  }

  // Into contiguous memory, rounded on the way where it is BF16.
  void send(std::span<const float> from, View to) const {
    const std::uint64_t size = size_of(to.dtype);
    device_->send(to.data, from.size() * size, [&](std::byte* piece, std::uint64_t offset, std::uint64_t count) {
      const float* values = from.data() + offset / size;
      if (to.dtype == DType::kF32) {
        copy_past_caches(reinterpret_cast<const std::byte*>(values), count, piece);
      } else {
        round_past_caches(values, static_cast<std::int64_t>(count / 2), piece);
      }
    });
  }

  ThreadPool& threads_;
  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<CudaProducts> products_;  // destroyed first: its memory is the card's
};

Result<std::unique_ptr<CudaOps>> make(int index, ThreadPool& threads) {
  ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device, CudaDevice::open(index, threads));
  ASSIGN_OR_RETURN(std::unique_ptr<CudaProducts> products, CudaProducts::load());
  return std::make_unique<CudaOps>(threads, std::move(device), std::move(products));
}

}  // namespace

Result<std::unique_ptr<Ops>> make_cuda_ops(int index, ThreadPool& threads) { return make(index, threads); }

Result<std::unique_ptr<Ops>> make_cuda_group_ops(std::span<const int> indices, ThreadPool& threads) {
  std::vector<std::unique_ptr<Ops>> members;
  std::vector<const CudaDevice*> devices;
  for (const int index : indices) {
    ASSIGN_OR_RETURN(std::unique_ptr<CudaOps> member, make(index, threads));
    devices.push_back(&member->device());
    members.push_back(std::move(member));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Collective> collective, make_cuda_collective(std::move(devices)));
  return make_group_ops(std::move(members), std::move(collective), threads);
}

}  // namespace chiasm
