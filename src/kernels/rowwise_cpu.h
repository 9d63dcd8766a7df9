// Row operations on the CPU: norms, the gated activation, the rotation. Used by ops_cpu.cpp and the integer products;
// shapes as in ops.h.
#pragma once

#include "kernels/ops.h"

namespace chiasm {

void layer_norm_cpu(ConstMatrixView x, const float* weight, const float* bias, float eps, MatrixView out);
void rms_norm_cpu(ConstMatrixView x, const float* weight, float eps, MatrixView out);
void silu_mul_cpu(ConstMatrixView gate, ConstMatrixView up, MatrixView out);
void rope_cpu(MatrixView x, std::int64_t heads, ConstMatrixView cos, ConstMatrixView sin);

}  // namespace chiasm
