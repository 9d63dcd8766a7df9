// What the cuda Ops keeps on the card: weights, the KV pool, and the lists of a step or of segments in the form of the
// kernels. Used by ops_cuda.cpp only. Thread contract: immutable once made, but for the pool's contents.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device_cuda.h"
#include "kernels/kernels_cuda.h"
#include "kernels/ops.h"

namespace chiasm {

CudaView cuda_view(ConstView v);

// Row-major [out_features, in_features] BF16, or integers or e4m3 with their scales; the bias in both dtypes, since
// cuBLASLt wants it in that of the result.
class CudaWeight final : public Weight {
 public:
  static Result<std::unique_ptr<const Weight>> make(const CudaDevice& device, std::span<const TensorView> weights,
                                                    std::span<const TensorView> biases);
  // Rounded on the host, by `threads`.
  static Result<std::unique_ptr<const Weight>> quantise(const CudaDevice& device, ThreadPool& threads,
                                                        std::span<const TensorView> weights,
                                                        std::span<const TensorView> biases, Precision precision);
  // Rounded before.
  static Result<std::unique_ptr<const Weight>> make(const CudaDevice& device, std::span<const QuantisedTensor> weights,
                                                    std::span<const TensorView> biases, Precision precision);
  std::uint64_t bytes() const override {
    return static_cast<std::uint64_t>(values_.size() + scales_.size() + bias_bf16_.size()) * 2 +
           static_cast<std::uint64_t>(bias_.size()) * 4;
  }
  bool quantised() const { return precision() != Precision::kExact; }
  CudaMatrix matrix() const;
  ConstView values() const { return values_.view(); }  // where it is not quantised
  const float* bias() const { return bias_.f32(); }
  // In the dtype of the result, from an output on; null where there is none.
  const void* bias_for(DType dtype, std::int64_t first = 0) const {
    if (bias_.size() == 0) return nullptr;
    const Buffer& bias = dtype == DType::kF32 ? bias_ : bias_bf16_;
    return bias.view().data + first * static_cast<std::int64_t>(size_of(dtype));
  }

 private:
  CudaWeight(std::int64_t out_features, std::int64_t in_features, Precision precision)
      : Weight(out_features, in_features, precision) {}
  static Result<std::unique_ptr<CudaWeight>> room(const CudaDevice& device, std::int64_t rows, std::int64_t depth,
                                                  Precision precision, const std::vector<float>& bias);
  Buffer values_, scales_;  // whatever they are, in units of two bytes
  Buffer bias_, bias_bf16_;
};

// BF16, [layer][block][kv_head][key or value][kKvBlock][head_dim]: a block of all layers is one strided copy. All of it
// is taken at once.
class CudaKvPool final : public KvPool {
 public:
  static Result<std::unique_ptr<KvPool>> make(const CudaDevice& device, const KvShape& shape);
  ~CudaKvPool() override;
  std::uint64_t bytes() const override { return layer_bytes() * static_cast<std::uint64_t>(shape().layers); }
  KvLayout layer(std::int64_t index) const;
  void copy_block(std::int32_t from, std::int32_t to);

 private:
  CudaKvPool(const CudaDevice& device, const KvShape& shape) : KvPool(shape), device_(device) {}
  std::uint64_t block_bytes() const {
    return static_cast<std::uint64_t>(shape().kv_heads * 2 * kKvBlock * shape().head_dim) * 2;
  }
  std::uint64_t layer_bytes() const { return block_bytes() * static_cast<std::uint64_t>(shape().blocks); }
  const CudaDevice& device_;
  std::byte* data_ = nullptr;
};

// Integers on the card, sent at once.
class CudaInts {
 public:
  static Result<CudaInts> send(const CudaDevice& device, std::span<const std::int32_t> values);
  void renew(const CudaDevice& device, std::span<const std::int32_t> values) const;  // no more than there were
  const std::int32_t* at(std::int64_t offset) const {
    return reinterpret_cast<const std::int32_t*>(data_.view().data) + offset;
  }

 private:
  Buffer data_;
};

// Where the lists of a step begin among its integers.
struct StepOffsets {
  std::int64_t ids = 0, positions = 0, axis = 0, frequency = 0;
  std::int64_t tiles = 0, key_tiles = 0, decode = 0, counters = 0, members = 0, items = 0, tables = 0;
  bool operator==(const StepOffsets&) const = default;
};

struct StepLists;

class CudaStepRows final : public StepRows {
 public:
  static Result<std::unique_ptr<const StepRows>> make(const CudaDevice& device, std::span<const SequenceRows> sequences,
                                                      std::int64_t heads, const KvShape& shape);
  // In the place of what `step` holds, where it has room, the same number of rows and the same program for them; true
  // if it was.
  static Result<bool> renew(const CudaDevice& device, std::span<const SequenceRows> sequences, const StepTokens& tokens,
                            std::int64_t heads, const KvShape& shape, std::unique_ptr<const StepRows>& step);
  const std::int32_t* slots() const { return ints_.at(0); }
  const std::int32_t* tables() const { return ints_.at(at_.tables); }
  // Of the tokens that renew() was given: a row a sequence.
  std::int64_t rows() const { return static_cast<std::int64_t>(sequences().size()); }
  const std::int32_t* ids() const { return ints_.at(at_.ids); }
  RopeAnglesCuda angles() const {
    return {.positions = ints_.at(at_.positions),
            .axis = ints_.at(at_.axis),
            .frequency = reinterpret_cast<const float*>(ints_.at(at_.frequency))};
  }
  std::int64_t pairs() const { return at_.frequency - at_.axis; }
  // Room for argmax_cuda(). What it finds goes to the host's memory: a copy behind it would take longer than it.
  std::span<std::int32_t> best() const { return {best_.get(), static_cast<std::size_t>(rows())}; }
  float* best_scratch() const { return reinterpret_cast<float*>(const_cast<std::byte*>(best_scratch_.view().data)); }
  WideTiles tiles() const {  // of the sequences that do not decode
    return {.queries = reinterpret_cast<const QueryTile*>(ints_.at(at_.tiles)),
            .count = tile_count_,
            .keys = reinterpret_cast<const KeyTile*>(ints_.at(at_.key_tiles)),
            .key_count = key_tile_count_};
  }
  // The sequences that decode. Layers use its room one after the other, in the stream's order.
  DecodeStep decode() const {
    return {.rows = reinterpret_cast<const DecodeRow*>(ints_.at(at_.decode)),
            .count = decode_count_,
            .splits = splits_,
            .tables = tables(),
            .partial = reinterpret_cast<float*>(const_cast<std::byte*>(partial_.view().data)),
            .counters = reinterpret_cast<unsigned*>(const_cast<std::int32_t*>(ints_.at(at_.counters))),
            .items = reinterpret_cast<const DecodeItem*>(ints_.at(at_.items)),
            .item_count = item_room_,
            .members = ints_.at(at_.members)};
  }

 private:
  explicit CudaStepRows(std::span<const SequenceRows> sequences) : StepRows(sequences) {}
  static Result<std::unique_ptr<const StepRows>> make(const CudaDevice& device, std::span<const SequenceRows> sequences,
                                                      StepLists lists, std::int64_t heads, const KvShape& shape,
                                                      bool to_renew);
  CudaInts ints_;
  Buffer partial_, best_scratch_;
  CudaDevice::HostInts best_;
  StepOffsets at_;
  std::int64_t tile_count_ = 0, key_tile_count_ = 0, decode_count_ = 0, splits_ = 0, item_room_ = 0, room_ = 0;
};

class CudaSegments final : public Segments {
 public:
  static Result<std::unique_ptr<const Segments>> make(const CudaDevice& device,
                                                      std::span<const std::int64_t> cu_seqlens);
  const QueryTile* tiles() const { return reinterpret_cast<const QueryTile*>(ints_.at(0)); }
  std::int64_t tile_count() const { return tile_count_; }

 private:
  explicit CudaSegments(std::span<const std::int64_t> cu_seqlens) : Segments(cu_seqlens) {}
  CudaInts ints_;
  std::int64_t tile_count_ = 0;
};

}  // namespace chiasm
