#include "kernels/tensor_map_cuda.h"

#include <cudaTypedefs.h>

namespace chiasm {
namespace {

// The driver's function, which programs are not linked with: they start where there is no driver.
PFN_cuTensorMapEncodeTiled_v12000 find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// Of up to three dimensions, the fastest first; strides in bytes, of all but that one.
struct Boxes {
  cuuint32_t dimensions;
  cuuint64_t sizes[3];
  cuuint64_t strides[2];
  cuuint32_t box[3];
};

cudaError_t encode(CUtensorMapDataType type, void* data, const Boxes& boxes, CUtensorMapSwizzle swizzle,
                   CUtensorMap& out) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_encoder();
  if (encoder == nullptr) return cudaErrorNotSupported;
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result = encoder(&out, type, boxes.dimensions, data, boxes.sizes, boxes.strides, boxes.box, steps,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t encode(const CudaView& matrix, const Boxes& boxes, CUtensorMapSwizzle swizzle, CUtensorMap& out) {
  return encode(matrix.f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, matrix.data, boxes,
                swizzle, out);
}

cuuint64_t row_bytes(const CudaView& matrix) { return static_cast<cuuint64_t>(matrix.stride) * (matrix.f32 ? 4 : 2); }

Boxes in_rows(const CudaView& matrix, int box_rows, int box_columns) {
  return {.dimensions = 2,
          .sizes = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)},
          .strides = {row_bytes(matrix)},
          .box = {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)}};
}

}  // namespace

cudaError_t make_tile_map(CudaView matrix, int box_rows, CUtensorMap& out) {
  return encode(matrix, in_rows(matrix, box_rows, 64), CU_TENSOR_MAP_SWIZZLE_128B, out);
}

cudaError_t make_fp8_tile_map(CudaView matrix, int box_rows, CUtensorMap& out) {
  const Boxes boxes{.dimensions = 2,
                    .sizes = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)},
                    .strides = {static_cast<cuuint64_t>(matrix.stride)},
                    .box = {128, static_cast<cuuint32_t>(box_rows)}};
  return encode(CU_TENSOR_MAP_DATA_TYPE_UINT8, matrix.data, boxes, CU_TENSOR_MAP_SWIZZLE_128B, out);
}

cudaError_t make_slab_map(CudaView matrix, int box_rows, int slabs, CUtensorMap& out) {
  constexpr int kColumns = 16, kSlabRow = 32;  // bytes
  const Boxes boxes{
      .dimensions = 3,
      .sizes = {kColumns, static_cast<cuuint64_t>(matrix.rows), static_cast<cuuint64_t>(matrix.cols / kColumns)},
      .strides = {row_bytes(matrix), kSlabRow},
      .box = {kColumns, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(slabs)}};
  return encode(matrix, boxes, CU_TENSOR_MAP_SWIZZLE_32B, out);
}

cudaError_t make_box_map(CudaView matrix, int box_rows, int box_columns, CUtensorMap& out) {
  return encode(matrix, in_rows(matrix, box_rows, box_columns), CU_TENSOR_MAP_SWIZZLE_NONE, out);
}

}  // namespace chiasm
