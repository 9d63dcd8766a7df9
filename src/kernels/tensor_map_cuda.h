// Descriptions of matrices for the copy engine (tensor maps), which kernels take by value. Rows are 16-byte
// aligned. Thread contract: pure functions.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/kernels_cuda.h"

namespace chiasm {

// A matrix in device memory that is read in boxes of box_rows rows of 128 bytes (64 BF16 values), which stand in shared
// memory as tensor_tiles_cuda.cuh says, zeros where there is no matrix.
cudaError_t make_tile_map(CudaView matrix, int box_rows, CUtensorMap& out);
// The same of e4m3 (128 values), its stride in bytes.
cudaError_t make_fp8_tile_map(CudaView matrix, int box_rows, CUtensorMap& out);

// One that is read in boxes of box_rows rows of `slabs` times 16 BF16 values, which stand in shared memory as
// wgmma_cuda.cuh has it: slab behind slab. Columns are counted in slabs.
cudaError_t make_slab_map(CudaView matrix, int box_rows, int slabs, CUtensorMap& out);

// One that is written in boxes, which stand in shared memory row after row.
cudaError_t make_box_map(CudaView matrix, int box_rows, int box_columns, CUtensorMap& out);

}  // namespace chiasm
