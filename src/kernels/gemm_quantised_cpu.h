// out = x * weight^T on the CPU, weight in small integers. Used by ops_cpu.cpp only.
//
// Activations are rounded once a product. In each group of inputs an output's sum is a sum of integers and exact, so
// every kernel gives the same one; the groups' sums are scaled and added in f32 in the groups' order: that keeps the
// row contract of ops.h for any number of rows. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/ops.h"
#include "kernels/quantised_weight.h"

namespace chiasm {

// Rounded activations: rows of integers `stride` bytes apart, filled up to whole groups with zeros.
struct QuantisedRows {
  std::int64_t rows = 0, groups = 0, stride = 0;
  const std::byte* values = nullptr;
  const float* scales = nullptr;          // [rows][groups]
  const std::int32_t* offsets = nullptr;  // [rows][groups]: -bias * sum of the integers, where each sum begins

  QuantisedRows row_range(std::int64_t begin, std::int64_t count) const {
    return {count, groups, stride, values + begin * stride, scales + begin * groups, offsets + begin * groups};
  }
};

// One way to multiply integers.
struct IntegerKernel {
  std::string_view name;
  // Activations that meet weights of 8 and of 4 bits: as int16, of each four in the order 0, 2, 1, 3; else as int8 in
  // order.
  bool int8_pairs = false, int4_pairs = false;
  bool pairs(const IntegerFormat& format) const { return format.bits == 8 ? int8_pairs : int4_pairs; }
  std::int64_t tile_rows = 1;    // rows that are computed side by side
  std::int64_t strip_depth = 0;  // inputs whose weights stay near while all rows pass
  // sums [x.rows][ldc], 32 columns of them, become groups [first, last) of x times one panel, or that is added.
  void (*multiply)(const QuantisedRows& x, const QuantisedWeight& weight, std::int64_t panel, std::int64_t first,
                   std::int64_t last, bool accumulate, float* sums, std::int64_t ldc);
};

// Those this machine can run, the fastest first. The last is written with Highway and runs everywhere.
std::span<const IntegerKernel* const> integer_kernels();

// The cpu Ops with a kernel of the caller's choice: for tests and measurements.
std::unique_ptr<Ops> make_cpu_ops(ThreadPool& threads, const IntegerKernel& kernel);

// Whether a gated product can be one pass: both halves of the outputs are whole panels.
bool gates_in_one_pass(const QuantisedWeight& weight);

// As Ops::matmul; gated only where it can be one pass.
void gemm_quantised_cpu(ThreadPool& threads, const IntegerKernel& kernel, ConstMatrixView x,
                        const QuantisedWeight& weight, const Epilogue& epilogue, MatrixView out);

}  // namespace chiasm
