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

cudaError_t encode(const CudaView& matrix, int box_rows, int box_columns, CUtensorMapSwizzle swizzle,
                   CUtensorMap& out) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_encoder();
  if (encoder == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(matrix.stride) * (matrix.f32 ? 4 : 2)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encoder(&out, matrix.f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                  2, matrix.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

cudaError_t make_tile_map(CudaView matrix, int box_rows, CUtensorMap& out) {
  return encode(matrix, box_rows, 64, CU_TENSOR_MAP_SWIZZLE_128B, out);
}

cudaError_t make_box_map(CudaView matrix, int box_rows, int box_columns, CUtensorMap& out) {
  return encode(matrix, box_rows, box_columns, CU_TENSOR_MAP_SWIZZLE_NONE, out);
}

}  // namespace chiasm
