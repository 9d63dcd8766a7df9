// The plain-loop Ops: the reference that defines every result.
//
// Matrix products sum in f32, one fused multiply-add after the other over k, so their bits are defined on every
// machine. Everything else is computed in double and rounded once, so that a faster kernel's distance from here is its
// own error.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/host_rows.h"
#include "kernels/ops.h"
#include "kernels/weight_rows.h"

// Hardware fused multiply-add where the machine has it; without it std::fma is a library call with the same result.
// Clones are chosen while the program is linked, before the thread sanitizer can be called: not under it.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
#define CHIASM_FMA_CLONES __attribute__((target_clones("fma", "default")))
#else
#define CHIASM_FMA_CLONES
#endif

namespace chiasm {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 39;  // of one buffer; past the machines these loops are for
constexpr std::int64_t kPanel = 16;  // output features that are summed side by side; their sums never mix

// f32 [N/16 panels, K, 16], the last panel filled up with zeros.
class RefWeight final : public Weight {
 public:
  explicit RefWeight(const WeightRows& rows) : Weight(rows.rows(), rows.depth()), bias_(rows.bias()) {
    const std::int64_t n = rows.rows(), k = rows.depth();
    panels_.resize(static_cast<std::size_t>((n + kPanel - 1) / kPanel * kPanel * k));
    for (std::int64_t i = 0; i < n; ++i) {
      const TensorView row{
          rows.dtype(), {k}, std::span(rows.row(i), static_cast<std::size_t>(k) * size_of(rows.dtype()))};
      for (std::int64_t j = 0; j < k; ++j) panels_[index(i, j)] = element_as_f32(row, j);
    }
  }
  std::uint64_t bytes() const override { return (panels_.size() + bias_.size()) * sizeof(float); }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  const float* panel(std::int64_t first_output) const { return panels_.data() + first_output * in_features(); }
  float at(std::int64_t output, std::int64_t input) const { return panels_[index(output, input)]; }

 private:
  std::size_t index(std::int64_t output, std::int64_t input) const {
    return static_cast<std::size_t>((output / kPanel * in_features() + input) * kPanel + output % kPanel);
  }
  std::vector<float> panels_, bias_;
};

// Integers and scales as their rows are, one output after the other.
class RefQuantisedWeight final : public Weight {
 public:
  RefQuantisedWeight(std::int64_t rows, std::int64_t depth, Precision precision, std::vector<float> bias)
      : Weight(rows, depth, precision),
        format_(integer_format(precision)),
        values_(static_cast<std::size_t>(rows * format_.row_bytes(depth))),
        scales_(static_cast<std::size_t>(rows * format_.groups(depth))),
        bias_(std::move(bias)) {}
  std::uint64_t bytes() const override { return values_.size() + 2 * scales_.size() + 4 * bias_.size(); }
  const IntegerFormat& format() const { return format_; }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  std::uint8_t* values(std::int64_t i) { return values_.data() + i * format_.row_bytes(in_features()); }
  std::uint16_t* scales(std::int64_t i) { return scales_.data() + i * format_.groups(in_features()); }
  float at(std::int64_t output, std::int64_t input) const {
    return dequantised(values_.data() + output * format_.row_bytes(in_features()),
                       scales_.data() + output * format_.groups(in_features()), format_, input);
  }
  // The integer alone, and its group's scale.
  std::int32_t integer(std::int64_t output, std::int64_t input) const {
    const std::uint16_t one = 0x3F80;
    const std::uint8_t* row = values_.data() + output * format_.row_bytes(in_features());
    const std::int64_t group = input / format_.group;
    return static_cast<std::int32_t>(
        dequantised(row + group * format_.group_bytes(), &one, format_, input % format_.group));
  }
  float scale(std::int64_t output, std::int64_t group) const {
    return bf16_to_f32(scales_[static_cast<std::size_t>(output * format_.groups(in_features()) + group)]);
  }

 private:
  IntegerFormat format_;
  std::vector<std::uint8_t> values_;
  std::vector<std::uint16_t> scales_;
  std::vector<float> bias_;
};

// The numbers that e4m3 codes stand for, and the scale of each output.
class RefFp8Weight final : public Weight {
 public:
  RefFp8Weight(const WeightRows& numbers, std::vector<float> scales)
      : Weight(numbers.rows(), numbers.depth(), Precision::kFp8), numbers_(numbers), scales_(std::move(scales)) {}
  std::uint64_t bytes() const override { return numbers_.bytes() + scales_.size() * sizeof(float); }
  const RefWeight& numbers() const { return numbers_; }
  float scale(std::int64_t output) const { return scales_[static_cast<std::size_t>(output)]; }
  float at(std::int64_t output, std::int64_t input) const { return numbers_.at(output, input) * scale(output); }

 private:
  RefWeight numbers_;
  std::vector<float> scales_;
};

// Element of a weight of any precision.
float element_of(const Weight& weight, std::int64_t output, std::int64_t input) {
  if (weight.precision() == Precision::kExact) return static_cast<const RefWeight&>(weight).at(output, input);
  if (weight.precision() == Precision::kFp8) return static_cast<const RefFp8Weight&>(weight).at(output, input);
  return static_cast<const RefQuantisedWeight&>(weight).at(output, input);
}

// Keys and values as [layer][block][token in block][kv_heads * head_dim].
class RefKvPool final : public KvPool {
 public:
  RefKvPool(const KvShape& shape, std::size_t floats) : KvPool(shape), keys_(floats), values_(floats) {}
  std::uint64_t bytes() const override { return (keys_.size() + values_.size()) * sizeof(float); }
  std::int64_t width() const { return shape().kv_heads * shape().head_dim; }

  float* key(std::int64_t layer, std::int64_t block, std::int64_t slot) { return &keys_[offset(layer, block, slot)]; }
  float* value(std::int64_t layer, std::int64_t block, std::int64_t slot) {
    return &values_[offset(layer, block, slot)];
  }
  const float* key(std::int64_t layer, std::int64_t block, std::int64_t slot) const {
    return &keys_[offset(layer, block, slot)];
  }
  const float* value(std::int64_t layer, std::int64_t block, std::int64_t slot) const {
    return &values_[offset(layer, block, slot)];
  }

 private:
  std::size_t offset(std::int64_t layer, std::int64_t block, std::int64_t slot) const {
    CHECK(layer >= 0 && layer < shape().layers);
    CHECK(block >= 0 && block < shape().blocks);
    return static_cast<std::size_t>(((layer * shape().blocks + block) * kKvBlock + slot) * width());
  }
  std::vector<float> keys_, values_;
};

CHIASM_FMA_CLONES
void panel_sums(const float* x, const float* panel, std::int64_t k, float* sums) {
  float s[kPanel] = {};
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < kPanel; ++j) s[j] = std::fma(x[i], panel[i * kPanel + j], s[j]);
  }
  std::memcpy(sums, s, sizeof(s));
}

float activate(float x, Activation activation) {
  const double v = x;
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kQuickGelu: return static_cast<float>(v / (1 + std::exp(-1.702 * v)));
    case Activation::kGelu: return static_cast<float>(0.5 * v * (1 + std::erf(v * 0.70710678118654752440)));
  }
  return x;
}

// One query against `count` keys, in two passes over the scores. key(t) and value(t) give the head's slice of token t.
template <class Key, class Value>
void attend(const float* q, std::int64_t head_dim, double scale, std::int64_t count, const Key& key, const Value& value,
            float* out) {
  std::vector<double> weights(static_cast<std::size_t>(count));
  double highest = -INFINITY;
  for (std::int64_t t = 0; t < count; ++t) {
    const float* k = key(t);
    double dot = 0;
    for (std::int64_t i = 0; i < head_dim; ++i) dot += static_cast<double>(q[i]) * static_cast<double>(k[i]);
    weights[static_cast<std::size_t>(t)] = dot * scale;
    highest = std::max(highest, dot * scale);
  }
  double total = 0;
  for (double& weight : weights) total += weight = std::exp(weight - highest);
  std::vector<double> sum(static_cast<std::size_t>(head_dim), 0.0);
  for (std::int64_t t = 0; t < count; ++t) {
    const float* v = value(t);
    const double weight = weights[static_cast<std::size_t>(t)];
    for (std::int64_t i = 0; i < head_dim; ++i) sum[static_cast<std::size_t>(i)] += weight * static_cast<double>(v[i]);
  }
  for (std::int64_t i = 0; i < head_dim; ++i) out[i] = static_cast<float>(sum[static_cast<std::size_t>(i)] / total);
}

void check_sequences(std::span<const SequenceRows> sequences, std::int64_t rows) {
  std::int64_t sum = 0;
  for (const SequenceRows& sequence : sequences) {
    CHECK(sequence.past >= 0 && sequence.count >= 0);
    CHECK(static_cast<std::int64_t>(sequence.block_table.size()) * kKvBlock >= sequence.past + sequence.count);
    sum += sequence.count;
  }
  CHECK(sum == rows);
}

class RefOps final : public Ops {
 public:
  std::string_view name() const override { return "ref"; }

  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const override {
    CHECK(dtype == DType::kF32);
    ASSIGN_OR_RETURN(Matrix matrix, Matrix::create(rows, cols));
    return Buffer(std::move(matrix));
  }

  void upload(std::span<const float> from, View to_view) const override {
    const MatrixView to = to_view.f32();
    CHECK(static_cast<std::int64_t>(from.size()) == to.rows * to.cols);
    for (std::int64_t i = 0; i < to.rows; ++i) std::copy_n(from.data() + i * to.cols, to.cols, to.row(i));
  }

  Status download(ConstView from_view, std::span<float> to) const override {
    const ConstMatrixView from = from_view.f32();
    CHECK(static_cast<std::int64_t>(to.size()) == from.rows * from.cols);
    for (std::int64_t i = 0; i < from.rows; ++i) std::copy_n(from.row(i), from.cols, to.data() + i * from.cols);
    return {};
  }

  Result<std::unique_ptr<const Weight>> prepare(std::span<const TensorView> weights,
                                                std::span<const TensorView> biases) const override {
    ASSIGN_OR_RETURN(const WeightRows rows, WeightRows::join(weights, biases));
    try {
      return std::make_unique<RefWeight>(rows);
    } catch (const std::exception&) {  // bad_alloc, or length_error
      return fail(Code::kResourceExhausted, "no memory for a weight of shape {}",
                  shape_text({rows.rows(), rows.depth()}));
    }
  }

  Result<std::unique_ptr<KvPool>> make_kv_pool(const KvShape& shape) const override {
    const Shape sizes{shape.layers, shape.blocks, kKvBlock, shape.kv_heads, shape.head_dim};
    ASSIGN_OR_RETURN(const std::int64_t count, element_count(sizes));
    ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count(sizes, DType::kF32));
    const auto refused = [&] {
      return fail(Code::kResourceExhausted, "no memory for a KV pool of {} blocks (2 x {} bytes)", shape.blocks, bytes);
    };
    if (bytes > kMostBytes) return refused();
    try {
      return std::make_unique<RefKvPool>(shape, static_cast<std::size_t>(count));
    } catch (const std::bad_alloc&) {
      return refused();
    }
  }

  Result<std::unique_ptr<const Weight>> quantise(std::span<const TensorView> weights,
                                                 std::span<const TensorView> biases,
                                                 Precision precision) const override {
    ASSIGN_OR_RETURN(const WeightRows rows, WeightRows::join(weights, biases));
    if (precision == Precision::kFp8) return round_to_fp8(rows, biases);
    auto out = std::make_unique<RefQuantisedWeight>(rows.rows(), rows.depth(), precision, rows.bias());
    std::vector<float> wide(static_cast<std::size_t>(rows.depth()));
    for (std::int64_t i = 0; i < rows.rows(); ++i) {
      const TensorView row{rows.dtype(),
                           {rows.depth()},
                           std::span(rows.row(i), static_cast<std::size_t>(rows.depth()) * size_of(rows.dtype()))};
      for (std::int64_t k = 0; k < rows.depth(); ++k) wide[static_cast<std::size_t>(k)] = element_as_f32(row, k);
      quantise_row(wide.data(), rows.depth(), out->format(), out->values(i), out->scales(i));
    }
    return out;
  }

  Result<std::unique_ptr<const Weight>> prepare_quantised(std::span<const QuantisedTensor> weights,
                                                          std::span<const TensorView> biases,
                                                          Precision precision) const override {
    std::int64_t rows = 0;
    for (const QuantisedTensor& tensor : weights) rows += tensor.values.shape.at(0);
    ASSIGN_OR_RETURN(std::vector<float> bias, join_biases(biases, rows));
    auto out = std::make_unique<RefQuantisedWeight>(rows, weights.front().depth, precision, std::move(bias));
    std::int64_t first = 0;
    for (const QuantisedTensor& tensor : weights) {
      RETURN_IF_ERROR(check_quantised(tensor, precision));
      CHECK(tensor.depth == out->in_features());
      std::memcpy(out->values(first), tensor.values.bytes.data(), tensor.values.bytes.size());
      std::memcpy(out->scales(first), tensor.scales.bytes.data(), tensor.scales.bytes.size());
      first += tensor.values.shape[0];
    }
    return out;
  }

  void matmul(ConstView x, const Weight& weight, const Epilogue& epilogue, View out) const override {
    if (weight.precision() == Precision::kFp8) {
      matmul_fp8(x.f32(), static_cast<const RefFp8Weight&>(weight), epilogue, out.f32());
    } else if (weight.precision() != Precision::kExact) {
      matmul_quantised(x.f32(), static_cast<const RefQuantisedWeight&>(weight), epilogue, out.f32());
    } else {
      matmul_exact(x.f32(), static_cast<const RefWeight&>(weight), epilogue, out.f32());
    }
    if (epilogue.gated) {
      const std::int64_t half = out.cols / 2;
      silu_mul(out.col_range(0, half), out.col_range(half, half), out.col_range(0, half));
    }
  }

  static void matmul_exact(ConstMatrixView x, const RefWeight& w, const Epilogue& epilogue, MatrixView out) {
    CHECK(x.cols == w.in_features() && out.cols == w.out_features() && out.rows == x.rows);
    for (std::int64_t n = 0; n < out.cols; n += kPanel) {
      for (std::int64_t m = 0; m < x.rows; ++m) {
        float sums[kPanel];
        panel_sums(x.row(m), w.panel(n), x.cols, sums);
        for (std::int64_t j = 0; j < std::min(kPanel, out.cols - n); ++j) {
          const float biased = w.bias() != nullptr ? sums[j] + w.bias()[n + j] : sums[j];
          const float value = activate(biased, epilogue.activation);
          float& target = out.row(m)[n + j];
          target = epilogue.add_to_out ? target + value : value;
        }
      }
    }
  }

  void embed(std::span<const std::int32_t> ids, const Weight& table, View out_view) const override {
    const MatrixView out = out_view.f32();
    CHECK(out.rows == static_cast<std::int64_t>(ids.size()) && out.cols == table.in_features());
    for (std::int64_t i = 0; i < out.rows; ++i) {
      const std::int32_t id = ids[static_cast<std::size_t>(i)];
      CHECK(id >= 0 && id < table.out_features());
      for (std::int64_t j = 0; j < out.cols; ++j) out.row(i)[j] = element_of(table, id, j);
    }
  }

  void layer_norm(ConstView x_view, const float* weight, const float* bias, float eps, View out_view) const override {
    const ConstMatrixView x = x_view.f32();
    const MatrixView out = out_view.f32();
    CHECK(same_shape(x, out));
    for (std::int64_t i = 0; i < x.rows; ++i) {
      const float* row = x.row(i);
      double mean = 0, variance = 0;
      for (std::int64_t j = 0; j < x.cols; ++j) mean += static_cast<double>(row[j]);
      mean /= static_cast<double>(x.cols);
      for (std::int64_t j = 0; j < x.cols; ++j) variance += (row[j] - mean) * (row[j] - mean);
      variance /= static_cast<double>(x.cols);
      const double inverse = 1 / std::sqrt(variance + static_cast<double>(eps));
      for (std::int64_t j = 0; j < x.cols; ++j) {
        out.row(i)[j] = static_cast<float>((row[j] - mean) * inverse * static_cast<double>(weight[j]) +
                                           static_cast<double>(bias[j]));
      }
    }
  }

  void rms_norm(ConstView x_view, const float* weight, float eps, View out_view) const override {
    const ConstMatrixView x = x_view.f32();
    const MatrixView out = out_view.f32();
    CHECK(same_shape(x, out));
    for (std::int64_t i = 0; i < x.rows; ++i) {
      const float* row = x.row(i);
      double squares = 0;
      for (std::int64_t j = 0; j < x.cols; ++j) squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.cols) + static_cast<double>(eps));
      for (std::int64_t j = 0; j < x.cols; ++j)
        out.row(i)[j] = static_cast<float>(row[j] * inverse * static_cast<double>(weight[j]));
    }
  }

  void silu_mul(ConstView gate_view, ConstView up_view, View out_view) const override {
    const ConstMatrixView gate = gate_view.f32(), up = up_view.f32();
    const MatrixView out = out_view.f32();
    CHECK(same_shape(gate, up) && same_shape(gate, out));
    for (std::int64_t i = 0; i < gate.rows; ++i) {
      for (std::int64_t j = 0; j < gate.cols; ++j) {
        const double g = gate.row(i)[j];
        out.row(i)[j] = static_cast<float>(g / (1 + std::exp(-g)) * static_cast<double>(up.row(i)[j]));
      }
    }
  }

  void rope_table(const RopeAngles& angles, View cos, View sin) const override {
    rope_table_host(angles, cos.f32(), sin.f32());
  }

  void rope(View x_view, std::int64_t heads, const RopeTable& table) const override {
    const MatrixView x = x_view.f32();
    const ConstMatrixView cos = table.cos.f32(), sin = table.sin.f32();
    CHECK(heads > 0 && x.cols % (2 * heads) == 0);
    const std::int64_t half = x.cols / heads / 2;
    CHECK(cos.rows == x.rows && cos.cols == half && same_shape(cos, sin));
    for (std::int64_t i = 0; i < x.rows; ++i) {
      for (std::int64_t h = 0; h < heads; ++h) {
        float* first = x.row(i) + h * 2 * half;
        float* second = first + half;
        for (std::int64_t j = 0; j < half; ++j) {
          const double c = cos.row(i)[j], s = sin.row(i)[j], a = first[j], b = second[j];
          first[j] = static_cast<float>(a * c - b * s);
          second[j] = static_cast<float>(b * c + a * s);
        }
      }
    }
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
    CHECK(same_shape(q, k) && same_shape(q, v) && same_shape(q, out));
    CHECK(heads > 0 && q.cols % heads == 0);
    CHECK(!cu_seqlens.empty() && cu_seqlens.front() == 0 && cu_seqlens.back() == q.rows);
    CHECK(std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()));
    const std::int64_t head_dim = q.cols / heads;
    for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
      const std::int64_t begin = cu_seqlens[s], end = cu_seqlens[s + 1];
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t column = 0; column < q.cols; column += head_dim) {
          attend(
              q.row(i) + column, head_dim, static_cast<double>(scale), end - begin,
              [&](std::int64_t t) { return k.row(begin + t) + column; },
              [&](std::int64_t t) { return v.row(begin + t) + column; }, out.row(i) + column);
        }
      }
    }
  }

  void kv_write(ConstView k_view, ConstView v_view, const StepRows& step, std::int64_t layer,
                KvPool& pool) const override {
    const ConstMatrixView k = k_view.f32(), v = v_view.f32();
    const std::span<const SequenceRows> sequences = step.sequences();
    auto& p = static_cast<RefKvPool&>(pool);
    CHECK(same_shape(k, v) && k.cols == p.width());
    check_sequences(sequences, k.rows);
    std::int64_t row = 0;
    for (const SequenceRows& sequence : sequences) {
      for (std::int64_t t = sequence.past; t < sequence.past + sequence.count; ++t, ++row) {
        const std::int32_t block = sequence.block_table[static_cast<std::size_t>(t / kKvBlock)];
        std::copy_n(k.row(row), k.cols, p.key(layer, block, t % kKvBlock));
        std::copy_n(v.row(row), v.cols, p.value(layer, block, t % kKvBlock));
      }
    }
  }

  void paged_attention(ConstView q_view, std::int64_t heads, float scale, const StepRows& step, std::int64_t layer,
                       const KvPool& pool, View out_view) const override {
    const ConstMatrixView q = q_view.f32();
    const MatrixView out = out_view.f32();
    const std::span<const SequenceRows> sequences = step.sequences();
    const auto& p = static_cast<const RefKvPool&>(pool);
    const std::int64_t head_dim = p.shape().head_dim;
    CHECK(same_shape(q, out) && q.cols == heads * head_dim && heads % p.shape().kv_heads == 0);
    check_sequences(sequences, q.rows);
    const std::int64_t group = heads / p.shape().kv_heads;
    std::int64_t row = 0;
    for (const SequenceRows& sequence : sequences) {
      const auto block = [&](std::int64_t t) { return sequence.block_table[static_cast<std::size_t>(t / kKvBlock)]; };
      for (std::int64_t j = 0; j < sequence.count; ++j, ++row) {
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t column = h / group * head_dim;
          attend(
              q.row(row) + h * head_dim, head_dim, static_cast<double>(scale), sequence.past + j + 1,
              [&](std::int64_t t) { return p.key(layer, block(t), t % kKvBlock) + column; },
              [&](std::int64_t t) { return p.value(layer, block(t), t % kKvBlock) + column; },
              out.row(row) + h * head_dim);
        }
      }
    }
  }

  void copy_kv_block(std::int32_t from, std::int32_t to, KvPool& pool) const override {
    auto& p = static_cast<RefKvPool&>(pool);
    if (from == to) return;
    for (std::int64_t layer = 0; layer < p.shape().layers; ++layer) {
      std::copy_n(p.key(layer, from, 0), kKvBlock * p.width(), p.key(layer, to, 0));
      std::copy_n(p.value(layer, from, 0), kKvBlock * p.width(), p.value(layer, to, 0));
    }
  }

 private:
  // Whole sums of integers in each group; the groups' sums, scaled, one fused multiply-add after the other.
  static void matmul_quantised(ConstMatrixView x, const RefQuantisedWeight& w, const Epilogue& epilogue,
                               MatrixView out) {
    CHECK(x.cols == w.in_features() && out.cols == w.out_features() && out.rows == x.rows);
    const std::int64_t group = w.format().group, groups = w.format().groups(x.cols);
    std::vector<std::int8_t> values(static_cast<std::size_t>(x.cols));
    std::vector<float> scales(static_cast<std::size_t>(groups));
    for (std::int64_t m = 0; m < x.rows; ++m) {
      for (std::int64_t g = 0; g < groups; ++g)
        scales[static_cast<std::size_t>(g)] =
            quantise_activations(x.row(m) + g * group, std::min(group, x.cols - g * group), values.data() + g * group);
      for (std::int64_t n = 0; n < out.cols; ++n) {
        float sum = 0;
        for (std::int64_t g = 0; g < groups; ++g) {
          std::int32_t integers = 0;
          for (std::int64_t k = g * group; k < std::min((g + 1) * group, x.cols); ++k)
            integers += w.integer(n, k) * values[static_cast<std::size_t>(k)];
          sum = std::fma(static_cast<float>(integers), scales[static_cast<std::size_t>(g)] * w.scale(n, g), sum);
        }
        const float value = activate(w.bias() != nullptr ? sum + w.bias()[n] : sum, epilogue.activation);
        float& target = out.row(m)[n];
        target = epilogue.add_to_out ? target + value : value;
      }
    }
  }

  static Result<std::unique_ptr<const Weight>> round_to_fp8(const WeightRows& rows,
                                                            std::span<const TensorView> biases) {
    const std::int64_t n = rows.rows(), k = rows.depth();
    std::vector<float> numbers(static_cast<std::size_t>(n * k)), scales(static_cast<std::size_t>(n));
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(k));
    for (std::int64_t i = 0; i < n; ++i) {
      float* const row = numbers.data() + i * k;
      rows.widen(i, row);
      scales[static_cast<std::size_t>(i)] = round_row_to_fp8(row, k, codes.data());
      std::transform(codes.begin(), codes.end(), row, e4m3_to_f32);
    }
    const TensorView view{DType::kF32, {n, k}, std::as_bytes(std::span(numbers))};
    ASSIGN_OR_RETURN(const WeightRows joined, WeightRows::join({&view, 1}, biases));
    return std::make_unique<RefFp8Weight>(joined, std::move(scales));
  }

  static void matmul_fp8(ConstMatrixView x, const RefFp8Weight& w, const Epilogue& epilogue, MatrixView out) {
    CHECK(x.cols == w.in_features() && out.cols == w.out_features() && out.rows == x.rows);
    const float* const bias = w.numbers().bias();
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(x.cols));
    std::vector<float> numbers(codes.size());
    for (std::int64_t m = 0; m < x.rows; ++m) {
      const float scale = round_row_to_fp8(x.row(m), x.cols, codes.data());
      std::transform(codes.begin(), codes.end(), numbers.begin(), e4m3_to_f32);
      for (std::int64_t n = 0; n < out.cols; n += kPanel) {
        float sums[kPanel];
        panel_sums(numbers.data(), w.numbers().panel(n), x.cols, sums);
        for (std::int64_t j = 0; j < std::min(kPanel, out.cols - n); ++j) {
          const float sum = std::fma(sums[j] * scale, w.scale(n + j), bias != nullptr ? bias[n + j] : 0.0F);
          const float value = activate(sum, epilogue.activation);
          float& target = out.row(m)[n + j];
          target = epilogue.add_to_out ? target + value : value;
        }
      }
    }
  }
};

}  // namespace

std::unique_ptr<Ops> make_ref_ops() { return std::make_unique<RefOps>(); }

}  // namespace chiasm
