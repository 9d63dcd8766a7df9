// out = x * weight^T on the CPU. Used by ops_cpu.cpp only.
#pragma once

#include "kernels/ops.h"
#include "kernels/row_weight.h"

namespace chiasm {

// As Ops::matmul.
void gemm_cpu(ThreadPool& threads, ConstMatrixView x, const RowWeight& weight, const Epilogue& epilogue,
              MatrixView out);

}  // namespace chiasm
