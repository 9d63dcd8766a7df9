// Operands for the benchmark: reproducible values, weights of a dtype, the numbers of threads to measure.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "kernels/ops.h"
#include "tensor/tensor.h"

namespace chiasm::bench {

// Values in [-1, 1) that follow from the seed.
inline Matrix random_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Matrix out(rows, cols);
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (std::int64_t i = 0; i < out.size(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    out.data()[i] = static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1p-31F;
  }
  return out;
}

inline std::unique_ptr<const Weight> prepared(const Ops& ops, const Matrix& values, DType dtype) {
  TensorView view{dtype, {values.rows(), values.cols()}, {}};
  std::vector<std::uint16_t> halves;
  if (dtype == DType::kBF16) {
    halves.resize(static_cast<std::size_t>(values.size()));
    for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = f32_to_bf16(values.data()[i]);
    view.bytes = std::as_bytes(std::span(halves));
  } else {
    view.bytes = std::as_bytes(std::span(values.data(), static_cast<std::size_t>(values.size())));
  }
  auto weight = prepare(ops, view);
  CHECK(weight.has_value());
  return std::move(*weight);
}

inline std::unique_ptr<const Weight> prepared(const Ops& ops, const Matrix& values, Precision precision) {
  const TensorView view{DType::kF32,
                        {values.rows(), values.cols()},
                        std::as_bytes(std::span(values.data(), static_cast<std::size_t>(values.size())))};
  auto weight = ops.quantise({&view, 1}, {}, precision);
  CHECK(weight.has_value());
  return std::move(*weight);
}

inline std::vector<int> thread_counts(int threads) {
  if (threads == 1) return {1};
  return {1, threads};
}

}  // namespace chiasm::bench
