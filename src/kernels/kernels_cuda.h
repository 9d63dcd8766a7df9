// The launches of the cuda Ops' kernels: plain pointers and sizes, everything on one stream. Used by ops_cuda.cpp only.
//
// Each returns what the launch returned; what goes wrong in the kernel shows at the next synchronisation. Pointers are
// device memory. Shapes are checked by the caller. Thread contract: pure functions.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace chiasm {

// A matrix in device memory, F32 or BF16. Apart from buffer.h, so that device code includes nothing of the host's.
struct CudaView {
  void* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
  bool f32 = false;
};
// Whether every row begins at a multiple of 16 bytes.
inline bool aligned_rows(const CudaView& v) {
  return v.stride % (v.f32 ? 4 : 8) == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
}

// --- rows (rowwise_cuda.cu); x and out F32 or BF16
cudaError_t layer_norm_cuda(CudaView x, const float* weight, const float* bias, float eps, CudaView out,
                            cudaStream_t s);
cudaError_t rms_norm_cuda(CudaView x, const float* weight, float eps, CudaView out, cudaStream_t s);
cudaError_t silu_mul_cuda(CudaView gate, CudaView up, CudaView out, cudaStream_t s);
cudaError_t activate_cuda(CudaView x, int activation, cudaStream_t s);  // in place
cudaError_t rope_cuda(CudaView x, std::int64_t heads, CudaView cos, CudaView sin, cudaStream_t s);
struct RopeAnglesCuda {
  const std::int32_t *positions = nullptr, *axis = nullptr;  // [axes][rows], [pairs]
  const float* frequency = nullptr;                          // [pairs]
};
cudaError_t rope_table_cuda(const RopeAnglesCuda& angles, CudaView cos, CudaView sin, cudaStream_t s);
// out.row(i) = from.row(rows[i]) with a conversion; rows null: row i.
cudaError_t copy_rows_cuda(CudaView from, const std::int32_t* rows, CudaView out, cudaStream_t s);
// What a step of decoding begins with, in one launch where it can be: x = rows `ids` of the table, and its angles.
cudaError_t embed_and_turn_cuda(CudaView table, const std::int32_t* ids, CudaView x, const RopeAnglesCuda& angles,
                                CudaView cos, CudaView sin, cudaStream_t s);
// out[i] = as Ops::argmax. `scratch`: argmax_scratch(rows) floats and as many int32 behind them.
cudaError_t argmax_cuda(CudaView x, float* scratch, std::int32_t* out, cudaStream_t s);
std::int64_t argmax_scratch(std::int64_t rows);

// --- weights
// What the elements of a weight are.
enum class CudaFormat : std::uint8_t { kBf16, kInt8, kInt4, kFp8 };
// A matrix of rows of k in device memory: BF16; unsigned integers with BF16 scales [rows, groups] as precision.h has
// them, rows of whole groups; or e4m3 with F32 scales [rows], rows filled up with zeros to whole 16 bytes.
struct CudaMatrix {
  const void* data = nullptr;
  const void* scales = nullptr;  // null: BF16
  std::int64_t k = 0, row_bytes = 0;
  CudaFormat format = CudaFormat::kBf16;
  int group = 0;  // inputs of a scale, of integers
};
// Rows of integers or e4m3 as numbers (integers_cuda.cu): row i of out [count, k], F32 or BF16, is row first + i of the
// matrix, or rows[i] where that is not null.
cudaError_t dequantise_cuda(const CudaMatrix& weight, std::int64_t first, const std::int32_t* rows, CudaView out,
                            cudaStream_t s);

// Rows of activations in e4m3: codes [rows, row_bytes], 16-byte aligned, and a scale each.
struct Fp8Rows {
  void* codes = nullptr;
  float* scales = nullptr;
  std::int64_t rows = 0, k = 0, row_bytes = 0;
};
// round_row_to_fp8() of the rows of x, BF16 (fp8_cuda.cu). Bytes behind k stay as they are.
cudaError_t round_rows_cuda(CudaView x, const Fp8Rows& out, cudaStream_t s);

// --- products that cuBLASLt is not asked for
// Few rows (skinny_cuda.cu): x [rows, k] BF16, k a multiple of 8, 16-byte aligned rows. Integers become BF16 on their
// way. A row's bits do not depend on `rows`.
inline constexpr std::int64_t kSkinnyRows = 16;
// From there to here cuBLASLt may split k (decode of many); beyond, it may not.
inline constexpr std::int64_t kFewRows = 64;
struct SkinnyProduct {
  CudaView x;
  CudaMatrix weight;
  const float* bias = nullptr;
  int activation = 0;
  bool add_to_out = false;
  bool gated = false;  // as Epilogue::gated, nothing is stored in the second half; an even n
  // Not null: x is F32 and its rms_norm is multiplied; up to kNormedRows rows, k up to kNormedDepth.
  const float* norm_weight = nullptr;
  float eps = 0;
};
inline constexpr std::int64_t kNormedRows = 2, kNormedDepth = 8192;
cudaError_t skinny_matmul_cuda(const SkinnyProduct& product, CudaView out, cudaStream_t s);
// Any shape and alignment, slow (plain_matmul_cuda.cu).
cudaError_t plain_matmul_cuda(CudaView x, const void* weight, const float* bias, int activation, bool add_to_out,
                              CudaView out, cudaStream_t s);

// The same of e4m3 (fp8_cuda.cu).
cudaError_t plain_fp8_matmul_cuda(const Fp8Rows& x, const CudaMatrix& weight, const float* bias, int activation,
                                  bool add_to_out, CudaView out, cudaStream_t s);

// --- attention
// A tile of queries over one range of keys.
struct QueryTile {
  std::int32_t first_query = 0;     // (row, head of the group) pairs from here, counted in the sequence
  std::int32_t queries = 0;         // pairs of the whole sequence
  std::int32_t first_row = 0;       // of q and out: the sequence's first
  std::int32_t past = 0;            // paged: tokens in the pool before the sequence's rows
  std::int32_t keys = 0;            // not paged: of the segment
  std::int32_t table = 0;           // paged: where its block table begins
  std::int32_t first_key_tile = 0;  // paged: of the sequence, among the KeyTiles
};
inline constexpr std::int64_t kQueryTileRows = 128;
inline constexpr std::int64_t kMostHeadDim = 128;

// One layer of the pool, [block][kv_head][K or V][block_tokens][head_dim] BF16; strides in elements.
struct KvLayout {
  void* data = nullptr;
  std::int64_t block_tokens = 0, head_stride = 0, block_stride = 0, value_offset = 0;
};

// Every row sees its whole segment (attention_cuda.cu).
cudaError_t attention_cuda(CudaView q, CudaView k, CudaView v, std::int64_t heads, float scale, const QueryTile* tiles,
                           std::int64_t tile_count, CudaView out, cudaStream_t s);
// Causal, over the pool.
cudaError_t paged_attention_cuda(CudaView q, std::int64_t heads, std::int64_t kv_heads, float scale,
                                 const QueryTile* tiles, std::int64_t tile_count, const std::int32_t* tables,
                                 const KvLayout& pool, CudaView out, cudaStream_t s);

// The second again, faster, for what can_attend_wide_paged_cuda() takes (wide_attention_cuda.cu); the first:
// segment_attention_cuda.h.
inline constexpr std::int64_t kWideKeys = 128;
struct KeyTile {
  std::int32_t table = 0;      // where the block table begins
  std::int32_t first_key = 0;  // counted in the sequence
  std::int32_t keys = 0;       // of the sequence
};
struct WideTiles {
  const QueryTile* queries = nullptr;
  std::int64_t count = 0;
  const KeyTile* keys = nullptr;
  std::int64_t key_count = 0;
};
bool can_attend_wide_paged_cuda(CudaView q, CudaView out, std::int64_t heads);
// `packed` is room for key_count tiles of every kv head: wide_packed_columns(head_dim) BF16 values each.
inline std::int64_t wide_packed_columns(std::int64_t head_dim) { return 2 * kWideKeys * head_dim; }
cudaError_t wide_paged_attention_cuda(CudaView q, std::int64_t heads, std::int64_t kv_heads, float scale,
                                      const WideTiles& tiles, const std::int32_t* tables, const KvLayout& pool,
                                      void* packed, CudaView out, cudaStream_t s);

// One row a sequence, its keys split into ranges (decode_attention_cuda.cu): of kSplitKeys, of a multiple where that
// would be more than kMostSplits.
struct DecodeRow {
  std::int32_t row = 0, keys = 0, table = 0, split_keys = 0;
};
inline constexpr std::int64_t kSplitKeys = 128, kMostSplits = 64;
// A range of keys for the rows members[first .. first + count), which share its blocks (shared_decode_cuda.cu): of
// kSplitKeys, and none of the keys is new, where they are two or more; of count * (heads / kv_heads) <= kSharedQueries.
struct DecodeItem {
  std::int32_t range = 0, first = 0, count = 0;
  std::int32_t table = 0;  // where the block table of one of them begins
};
inline constexpr std::int64_t kSharedQueries = 64;
// Head sizes 64 and 128, up to 16 query heads a kv head, q's rows 16-byte aligned; others take the tiles.
bool can_decode_cuda(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim);
struct DecodeQueries {
  CudaView q;
  std::int64_t heads = 0, kv_heads = 0;
  // Where they are not null, q and k still have to be turned by cos and sin [rows, head_dim / 2], and k and v, with q's
  // stride, belong into the pool.
  const void *k = nullptr, *v = nullptr;
  const float *cos = nullptr, *sin = nullptr;
};
struct DecodeStep {
  const DecodeRow* rows = nullptr;
  std::int64_t count = 0, splits = 0;  // of rows, of the longest row's ranges
  const std::int32_t* tables = nullptr;
  float* partial = nullptr;      // count * heads * splits * (head_dim + 2)
  unsigned* counters = nullptr;  // count * kv_heads zeros, which they are again afterwards
  // Where there are items: every range of every row in one of them, the rest of the list empty (count 0).
  const DecodeItem* items = nullptr;
  std::int64_t item_count = 0;
  const std::int32_t* members = nullptr;  // indices of rows
};
cudaError_t decode_attention_cuda(const DecodeQueries& queries, const DecodeStep& step, const KvLayout& pool,
                                  float scale, CudaView out, cudaStream_t s);

// --- the pool (kv_cuda.cu): row i of k and v goes to slots[i] = block * kKvBlock + place.
// `cos`, `sin` [rows, head_dim / 2]: k is turned on its way, and so is q, in place.
cudaError_t turn_and_write_cuda(CudaView q, CudaView k, CudaView v, std::int64_t kv_heads, const float* cos,
                                const float* sin, const std::int32_t* slots, KvLayout pool, cudaStream_t s);
cudaError_t kv_write_cuda(CudaView k, CudaView v, const std::int32_t* slots, std::int64_t kv_heads, KvLayout pool,
                          cudaStream_t s);

}  // namespace chiasm
