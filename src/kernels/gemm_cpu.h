// out = x * weight^T on the CPU. Used by ops_cpu.cpp only.
#pragma once

#include "kernels/ops.h"
#include "kernels/packed_weight.h"

namespace chiasm {

// As Ops::matmul; `weight` is packed.
void gemm_cpu(ThreadPool& threads, ConstMatrixView x, const PackedWeight& weight, const Epilogue& epilogue,
              MatrixView out);

}  // namespace chiasm
