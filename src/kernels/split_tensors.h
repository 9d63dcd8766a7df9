// One part's share of a weight's tensors, as ops_group.cpp hands it to that part's Ops. Thread contract: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace chiasm {

struct TensorShare {
  std::vector<TensorView> weights, biases;
  std::vector<std::unique_ptr<std::byte[]>> copies;  // what stands in no tensor as it is
};

// Where rows [0, rows) go that are joined again: [parts + 1], from a multiple of 32 on.
std::vector<std::int64_t> joined_begins(std::int64_t rows, int parts);

// Of part `part` of `parts`. The tensors must outlive it. With kInputs the first part has the biases. Errors: tensors
// that are no weight (WeightRows), shares beyond them.
Result<TensorShare> share_of(std::span<const TensorView> weights, std::span<const TensorView> biases,
                             const Split& split, int part, int parts, ThreadPool& threads);

}  // namespace chiasm
