#include "kernels/memory_cuda.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <utility>

#include "kernels/shared_ranges.h"
#include "kernels/stream_cpu.h"
#include "kernels/weight_rows.h"

namespace chiasm {
namespace {

// Round to nearest even, as f32_to_bf16; inline.
inline std::uint16_t rounded(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t up = bits + 0x7FFF + ((bits >> 16) & 1);
  const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return static_cast<std::uint16_t>((is_nan ? bits | 0x00400000 : up) >> 16);
}

// `count` elements from `at` of the weight's rows, as BF16. Rows may lie at any address.
void fill_bf16(const WeightRows& rows, std::int64_t at, std::int64_t count, std::byte* to) {
  while (count > 0) {
    const std::int64_t row = at / rows.depth(), column = at % rows.depth();
    const std::int64_t here = std::min(count, rows.depth() - column);
    const std::byte* from = rows.row(row) + static_cast<std::uint64_t>(column) * size_of(rows.dtype());
    if (rows.dtype() == DType::kBF16) {
      copy_past_caches(from, static_cast<std::uint64_t>(here) * 2, to);
    } else {
      for (std::int64_t i = 0; i < here; ++i) {
        float value = 0;
        if (rows.dtype() == DType::kF32) {
          std::memcpy(&value, from + i * 4, 4);
        } else {
          std::uint16_t half = 0;
          std::memcpy(&half, from + i * 2, 2);
          value = f16_to_f32(half);
        }
        const std::uint16_t bits = rounded(value);
        std::memcpy(to + i * 2, &bits, 2);
      }
    }
    at += here, count -= here, to += here * 2;
  }
}

void send_bytes(const CudaDevice& device, std::byte* to, std::span<const std::byte> bytes) {
  device.send(to, bytes.size(), [&](std::byte* piece, std::uint64_t offset, std::uint64_t count) {
    copy_past_caches(bytes.data() + offset, count, piece);
  });
}

// Bytes of a row of a weight, and of its scales.
struct RowBytes {
  std::int64_t values = 0, scales = 0;
};
RowBytes row_bytes(std::int64_t depth, Precision precision) {
  if (precision == Precision::kExact) return {depth * 2, 0};
  if (precision == Precision::kFp8) return {fp8_row_bytes(depth), sizeof(float)};
  const IntegerFormat format = integer_format(precision);
  return {format.row_bytes(depth), format.groups(depth) * 2};
}

// One row, rounded.
void round_row(const float* weights, std::int64_t depth, Precision precision, std::byte* values, std::byte* scales) {
  auto* const to = reinterpret_cast<std::uint8_t*>(values);
  if (precision == Precision::kFp8) {
    const float scale = round_row_to_fp8(weights, depth, to);
    std::memcpy(scales, &scale, sizeof(scale));
    return;
  }
  quantise_row(weights, depth, integer_format(precision), to, reinterpret_cast<std::uint16_t*>(scales));
}

template <class T>
std::int64_t append(std::vector<std::int32_t>& to, const std::vector<T>& values) {
  constexpr std::size_t kWord = sizeof(std::int32_t);
  static_assert(sizeof(T) % kWord == 0);
  const auto at = static_cast<std::int64_t>(to.size());
  to.resize(to.size() + values.size() * (sizeof(T) / kWord));
  if (!values.empty()) std::memcpy(to.data() + at, values.data(), values.size() * sizeof(T));
  return at;
}

}  // namespace

CudaView cuda_view(ConstView v) {
  CHECK(v.dtype == DType::kF32 || v.dtype == DType::kBF16);
  return {const_cast<std::byte*>(v.data), v.rows, v.cols, v.stride, v.dtype == DType::kF32};
}

Result<std::unique_ptr<CudaWeight>> CudaWeight::room(const CudaDevice& device, std::int64_t rows, std::int64_t depth,
                                                     Precision precision, const std::vector<float>& bias) {
  std::unique_ptr<CudaWeight> out(new CudaWeight(rows, depth, precision));
  const RowBytes bytes = row_bytes(depth, precision);
  ASSIGN_OR_RETURN(out->values_, device.allocate(rows, bytes.values / 2, DType::kBF16));
  if (precision != Precision::kExact) {
    ASSIGN_OR_RETURN(out->scales_, device.allocate(rows, bytes.scales / 2, DType::kBF16));
  }
  if (bias.empty()) return out;
  std::vector<std::uint16_t> halves(bias.size());
  std::transform(bias.begin(), bias.end(), halves.begin(), rounded);
  ASSIGN_OR_RETURN(out->bias_, device.allocate(1, rows, DType::kF32));
  ASSIGN_OR_RETURN(out->bias_bf16_, device.allocate(1, rows, DType::kBF16));
  device.send_small(out->bias_.view().data, bias.data(), bias.size() * sizeof(float));
  device.send_small(out->bias_bf16_.view().data, halves.data(), halves.size() * sizeof(std::uint16_t));
  return out;
}

CudaMatrix CudaWeight::matrix() const {
  CudaMatrix out{
      .data = values_.view().data, .k = in_features(), .row_bytes = row_bytes(in_features(), precision()).values};
  if (!quantised()) return out;
  out.scales = scales_.view().data;
  if (precision() == Precision::kFp8) {
    out.format = CudaFormat::kFp8;
    return out;
  }
  const IntegerFormat format = integer_format(precision());
  out.format = format.bits == 8 ? CudaFormat::kInt8 : CudaFormat::kInt4;
  out.group = static_cast<int>(format.group);
  return out;
}

Result<std::unique_ptr<const Weight>> CudaWeight::make(const CudaDevice& device, std::span<const TensorView> weights,
                                                       std::span<const TensorView> biases) {
  ASSIGN_OR_RETURN(const WeightRows rows, WeightRows::join(weights, biases));
  ASSIGN_OR_RETURN(std::unique_ptr<CudaWeight> out,
                   room(device, rows.rows(), rows.depth(), Precision::kExact, rows.bias()));
  device.send(out->values_.view().data, static_cast<std::uint64_t>(rows.rows() * rows.depth()) * 2,
              [&](std::byte* piece, std::uint64_t offset, std::uint64_t count) {
                fill_bf16(rows, static_cast<std::int64_t>(offset / 2), static_cast<std::int64_t>(count / 2), piece);
              });
  // The tensors may be let go of when this returns: the last pieces must be on their way.
  RETURN_IF_ERROR(device.status());
  return std::unique_ptr<const Weight>(std::move(out));
}

Result<std::unique_ptr<const Weight>> CudaWeight::quantise(const CudaDevice& device, ThreadPool& threads,
                                                           std::span<const TensorView> weights,
                                                           std::span<const TensorView> biases, Precision precision) {
  ASSIGN_OR_RETURN(const WeightRows rows, WeightRows::join(weights, biases));
  const RowBytes bytes = row_bytes(rows.depth(), precision);
  ASSIGN_OR_RETURN(std::unique_ptr<CudaWeight> out, room(device, rows.rows(), rows.depth(), precision, rows.bias()));
  std::vector<std::byte> values(
      static_cast<std::size_t>(rows.rows() * bytes.values));  // zeros where a row is filled up
  std::vector<std::byte> scales(static_cast<std::size_t>(rows.rows() * bytes.scales));
  constexpr std::int64_t kRows = 16;  // of a task
  threads.parallel_for((rows.rows() + kRows - 1) / kRows, [&](std::int64_t task, int) {
    std::vector<float> wide(static_cast<std::size_t>(rows.depth()));
    for (std::int64_t i = task * kRows; i < std::min(rows.rows(), (task + 1) * kRows); ++i) {
      rows.widen(i, wide.data());
      round_row(wide.data(), rows.depth(), precision, values.data() + i * bytes.values,
                scales.data() + i * bytes.scales);
    }
  });
  send_bytes(device, out->values_.view().data, values);
  send_bytes(device, out->scales_.view().data, scales);
  RETURN_IF_ERROR(device.status());
  return std::unique_ptr<const Weight>(std::move(out));
}

Result<std::unique_ptr<const Weight>> CudaWeight::make(const CudaDevice& device,
                                                       std::span<const QuantisedTensor> weights,
                                                       std::span<const TensorView> biases, Precision precision) {
  ASSIGN_OR_RETURN(const std::int64_t rows, quantised_rows(weights, precision));
  ASSIGN_OR_RETURN(const std::vector<float> bias, join_biases(biases, rows));
  ASSIGN_OR_RETURN(std::unique_ptr<CudaWeight> out, room(device, rows, weights.front().depth, precision, bias));
  std::byte* values = out->values_.view().data;
  std::byte* scales = out->scales_.view().data;
  for (const QuantisedTensor& tensor : weights) {
    send_bytes(device, values, tensor.values.bytes);
    send_bytes(device, scales, tensor.scales.bytes);
    values += tensor.values.bytes.size();
    scales += tensor.scales.bytes.size();
  }
  RETURN_IF_ERROR(device.status());
  return std::unique_ptr<const Weight>(std::move(out));
}

Result<std::unique_ptr<KvPool>> CudaKvPool::make(const CudaDevice& device, const KvShape& shape) {
  if (shape.head_dim > kMostHeadDim)
    return fail(Code::kUnimplemented, "head size: the card's attention takes up to {}, got {}", kMostHeadDim,
                shape.head_dim);
  ASSIGN_OR_RETURN(const std::uint64_t bytes,
                   byte_count({shape.layers, shape.blocks, shape.kv_heads, 2, kKvBlock, shape.head_dim}, DType::kBF16));
  if (bytes == 0) return fail(Code::kInvalidArgument, "a KV pool needs at least one layer, block and head");
  std::unique_ptr<CudaKvPool> out(new CudaKvPool(device, shape));
  ASSIGN_OR_RETURN(out->data_, device.allocate(bytes));
  device.note(cudaMemsetAsync(out->data_, 0, bytes, device.stream()), "clearing the KV pool");
  return std::unique_ptr<KvPool>(std::move(out));
}

CudaKvPool::~CudaKvPool() { device_.free(data_); }

KvLayout CudaKvPool::layer(std::int64_t index) const {
  CHECK(index >= 0 && index < shape().layers);
  return {.data = data_ + layer_bytes() * static_cast<std::uint64_t>(index),
          .block_tokens = kKvBlock,
          .head_stride = 2 * kKvBlock * shape().head_dim,
          .block_stride = shape().kv_heads * 2 * kKvBlock * shape().head_dim,
          .value_offset = kKvBlock * shape().head_dim};
}

void CudaKvPool::copy_block(std::int32_t from, std::int32_t to) {
  CHECK(from >= 0 && from < shape().blocks && to >= 0 && to < shape().blocks);
  if (from == to) return;
  device_.note(cudaMemcpy2DAsync(data_ + block_bytes() * static_cast<std::uint64_t>(to), layer_bytes(),
                                 data_ + block_bytes() * static_cast<std::uint64_t>(from), layer_bytes(), block_bytes(),
                                 static_cast<std::size_t>(shape().layers), cudaMemcpyDeviceToDevice, device_.stream()),
               "copying a KV block");
}

Result<CudaInts> CudaInts::send(const CudaDevice& device, std::span<const std::int32_t> values) {
  CudaInts out;
  ASSIGN_OR_RETURN(out.data_, device.allocate(1, static_cast<std::int64_t>(values.size()), DType::kF32));
  device.send_small(out.data_.view().data, values.data(), values.size_bytes());
  return out;
}

void CudaInts::renew(const CudaDevice& device, std::span<const std::int32_t> values) const {
  CHECK(static_cast<std::int64_t>(values.size()) <= data_.size());
  device.send_small(const_cast<std::byte*>(data_.view().data), values.data(), values.size_bytes());
}

// A step's lists on their way to the card.
struct StepLists {
  std::vector<std::int32_t> slots, tables, counters, ids, positions, axis, frequency, members;
  std::vector<QueryTile> tiles;
  std::vector<KeyTile> key_tiles;
  std::vector<DecodeRow> decode;
  std::vector<DecodeItem> items;
  std::int64_t splits = 0;

  // The tables last: theirs is the length that changes while a sequence decodes.
  std::vector<std::int32_t> joined(StepOffsets& at) const {
    std::vector<std::int32_t> out;
    append(out, slots);
    at.ids = append(out, ids);
    at.positions = append(out, positions);
    at.axis = append(out, axis);
    at.frequency = append(out, frequency);
    at.tiles = append(out, tiles);
    at.key_tiles = append(out, key_tiles);
    at.decode = append(out, decode);
    at.counters = append(out, counters);
    at.members = append(out, members);
    at.items = append(out, items);
    at.tables = append(out, tables);
    return out;
  }
};

namespace {

constexpr std::int64_t kSpareSplits = 2;
// When sharing pays, by whole steps: it ends with a kernel more, so from so many ranges (times kv heads) on that need
// not be read again; and beside products of few rows, which begin early, a step of up to 16 sequences was up to a fifth
// slower with it (docs/performance.md).
constexpr std::int64_t kSharingPays = 256, kFewestSharing = kSkinnyRows + 1;

// Fills items and members where sequences share enough ranges. `before`: whether they did in the step before; half as
// much is enough then, since a change costs a recording.
void share_ranges(std::int64_t group, std::int64_t kv_heads, bool before, StepLists& lists) {
  if (static_cast<std::int64_t>(lists.decode.size()) < kFewestSharing) return;
  std::vector<RangesOfSequence> sequences;
  for (const DecodeRow& row : lists.decode) {
    const auto table = std::span(lists.tables).subspan(static_cast<std::size_t>(row.table));
    sequences.push_back({table, row.split_keys == kSplitKeys ? (row.keys - 1) / kSplitKeys : 0});
  }
  const SharedRanges shared = shared_ranges(sequences, kSplitKeys / kKvBlock);
  std::int64_t saved = 0;
  std::vector<DecodeItem> items;
  for (const RangeGroup& whole : shared.groups)
    for (const RangeGroup& piece : pieces_of(whole, static_cast<std::int32_t>(kSharedQueries / group))) {
      const auto one = static_cast<std::size_t>(shared.order[static_cast<std::size_t>(piece.first)]);
      items.push_back({piece.range, piece.first, piece.count, lists.decode[one].table});
      saved += piece.count - 1;
    }
  if (saved * kv_heads < (before ? kSharingPays / 2 : kSharingPays)) return;
  for (std::size_t place = 0; place < shared.order.size(); ++place) {
    const auto index = static_cast<std::size_t>(shared.order[place]);
    const DecodeRow& row = lists.decode[index];
    for (std::int32_t range = shared.leading[index]; range * row.split_keys < row.keys; ++range)
      items.push_back({range, static_cast<std::int32_t>(place), 1, row.table});
  }
  lists.items = std::move(items);
  lists.members = shared.order;
}

StepLists lists_of(std::span<const SequenceRows> sequences, const StepTokens& tokens, std::int64_t heads,
                   const KvShape& shape, bool shared_before) {
  StepLists out;
  out.ids.assign(tokens.ids.begin(), tokens.ids.end());
  for (const auto& positions : tokens.angles.positions)
    out.positions.insert(out.positions.end(), positions.begin(), positions.end());
  out.axis.assign(tokens.angles.axis.begin(), tokens.angles.axis.end());
  for (const float frequency : tokens.angles.frequency) out.frequency.push_back(std::bit_cast<std::int32_t>(frequency));
  const bool can_decode = can_decode_cuda(heads, shape.kv_heads, shape.head_dim);
  const auto group = static_cast<std::int32_t>(heads / shape.kv_heads);
  std::int32_t row = 0;
  for (const SequenceRows& sequence : sequences) {
    const auto past = static_cast<std::int32_t>(sequence.past), count = static_cast<std::int32_t>(sequence.count);
    const auto table = static_cast<std::int32_t>(out.tables.size());
    const std::int64_t blocks = (sequence.past + sequence.count + kKvBlock - 1) / kKvBlock;
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int32_t block = sequence.block_table[static_cast<std::size_t>(b)];
      CHECK(block >= 0 && block < shape.blocks);
      out.tables.push_back(block);
    }
    for (std::int64_t t = past; t < past + count; ++t)
      out.slots.push_back(sequence.block_table[static_cast<std::size_t>(t / kKvBlock)] *
                              static_cast<std::int32_t>(kKvBlock) +
                          static_cast<std::int32_t>(t % kKvBlock));
    if (count == 1 && can_decode) {
      const std::int64_t keys = past + 1, most = kSplitKeys * kMostSplits;
      const std::int64_t range = (keys + most - 1) / most * kSplitKeys;
      out.decode.push_back({row, past + 1, table, static_cast<std::int32_t>(range)});
      out.splits = std::max(out.splits, (keys + range - 1) / range);
    } else {
      const auto first_key_tile = static_cast<std::int32_t>(out.key_tiles.size());
      for (std::int32_t q = 0; q < count * group; q += static_cast<std::int32_t>(kQueryTileRows))
        out.tiles.push_back({q, count * group, row, past, 0, table, first_key_tile});
      for (std::int32_t key = 0; key < past + count; key += static_cast<std::int32_t>(kWideKeys))
        out.key_tiles.push_back({table, key, past + count});
    }
    row += count;
  }
  out.counters.resize(out.decode.size() * static_cast<std::size_t>(shape.kv_heads));
  share_ranges(group, shape.kv_heads, shared_before, out);
  // The longest first: they decide when the last one ends. The order changes no result.
  std::stable_sort(out.tiles.begin(), out.tiles.end(), [group](const QueryTile& a, const QueryTile& b) {
    return a.past + a.first_query / group > b.past + b.first_query / group;
  });
  return out;
}

}  // namespace

Result<std::unique_ptr<const StepRows>> CudaStepRows::make(const CudaDevice& device,
                                                           std::span<const SequenceRows> sequences, std::int64_t heads,
                                                           const KvShape& shape) {
  return make(device, sequences, lists_of(sequences, {}, heads, shape, false), heads, shape, false);
}

Result<std::unique_ptr<const StepRows>> CudaStepRows::make(const CudaDevice& device,
                                                           std::span<const SequenceRows> sequences, StepLists lists,
                                                           std::int64_t heads, const KvShape& shape, bool to_renew) {
  std::unique_ptr<CudaStepRows> out(new CudaStepRows(sequences));
  out->tile_count_ = static_cast<std::int64_t>(lists.tiles.size());
  out->key_tile_count_ = static_cast<std::int64_t>(lists.key_tiles.size());
  out->decode_count_ = static_cast<std::int64_t>(lists.decode.size());
  out->splits_ = lists.splits;
  // Room for more than there is, so that this is seldom: but blocks of ranges that are not there cost time in each
  // step.
  std::size_t spare = 0;
  if (to_renew) {
    out->splits_ += kSpareSplits;
    if (!lists.items.empty()) lists.items.resize(lists.items.size() + lists.decode.size() * kSpareSplits);
    spare = lists.tables.size() + 32;
  }
  out->item_room_ = static_cast<std::int64_t>(lists.items.size());
  std::vector<std::int32_t> all = lists.joined(out->at_);
  all.resize(all.size() + spare);
  out->room_ = static_cast<std::int64_t>(all.size());
  ASSIGN_OR_RETURN(out->ints_, CudaInts::send(device, all));
  ASSIGN_OR_RETURN(out->partial_,
                   device.allocate(out->decode_count_ * heads * out->splits_, shape.head_dim + 2, DType::kF32));
  if (!lists.ids.empty()) {
    ASSIGN_OR_RETURN(out->best_scratch_, device.allocate(1, 2 * argmax_scratch(out->rows()), DType::kF32));
    ASSIGN_OR_RETURN(out->best_, device.host_ints(out->rows()));
  }
  return std::unique_ptr<const StepRows>(std::move(out));
}

Result<bool> CudaStepRows::renew(const CudaDevice& device, std::span<const SequenceRows> sequences,
                                 const StepTokens& tokens, std::int64_t heads, const KvShape& shape,
                                 std::unique_ptr<const StepRows>& step) {
  const auto* old = static_cast<const CudaStepRows*>(step.get());
  StepLists lists = lists_of(sequences, tokens, heads, shape, old != nullptr && old->item_room_ > 0);
  const auto items = static_cast<std::int64_t>(lists.items.size());
  if (old != nullptr && items <= old->item_room_ && (items > 0) == (old->item_room_ > 0)) {
    lists.items.resize(static_cast<std::size_t>(old->item_room_));
    StepOffsets at;
    const std::vector<std::int32_t> all = lists.joined(at);
    if (at == old->at_ && lists.tiles.empty() && static_cast<std::int64_t>(all.size()) <= old->room_ &&
        lists.splits <= old->splits_) {
      old->ints_.renew(device, all);
      return true;
    }
    lists.items.resize(static_cast<std::size_t>(items));
  }
  ASSIGN_OR_RETURN(step, make(device, sequences, std::move(lists), heads, shape, true));
  return false;
}

Result<std::unique_ptr<const Segments>> CudaSegments::make(const CudaDevice& device,
                                                           std::span<const std::int64_t> cu_seqlens) {
  CHECK(!cu_seqlens.empty() && cu_seqlens.front() == 0);
  std::unique_ptr<CudaSegments> out(new CudaSegments(cu_seqlens));
  std::vector<QueryTile> tiles;
  for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    const auto first = static_cast<std::int32_t>(cu_seqlens[s]);
    const auto count = static_cast<std::int32_t>(cu_seqlens[s + 1] - cu_seqlens[s]);
    for (std::int32_t q = 0; q < count; q += static_cast<std::int32_t>(kQueryTileRows))
      tiles.push_back({.first_query = q, .queries = count, .first_row = first, .keys = count});
  }
  // The longest first: they decide when the last one ends. The order changes no result.
  std::ranges::stable_sort(tiles, std::greater<>(), &QueryTile::keys);
  std::vector<std::int32_t> all;
  append(all, tiles);
  out->tile_count_ = static_cast<std::int64_t>(tiles.size());
  ASSIGN_OR_RETURN(out->ints_, CudaInts::send(device, all));
  return std::unique_ptr<const Segments>(std::move(out));
}

}  // namespace chiasm
