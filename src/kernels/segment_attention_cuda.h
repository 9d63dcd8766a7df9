// Attention of every row over its whole segment, heads of 80, on the tensor cores of compute capability 9.0
// (segment_attention_cuda.cu). Used by ops_cuda.cpp only. Thread contract: pure functions.
//
// A row's bits depend on its own segment only, whatever stands in the others.
#pragma once

#include "kernels/kernels_cuda.h"

namespace chiasm {

// BF16 matrices with 16-byte aligned rows, which may be column ranges of one.
bool can_attend_segments_cuda(CudaView q, CudaView k, CudaView v, CudaView out, std::int64_t heads);
// `tiles`: kQueryTileRows queries each. `out` overlaps none of the others.
cudaError_t segment_attention_cuda(CudaView q, CudaView k, CudaView v, std::int64_t heads, float scale,
                                   const QueryTile* tiles, std::int64_t tile_count, CudaView out, int multiprocessors,
                                   cudaStream_t s);

}  // namespace chiasm
