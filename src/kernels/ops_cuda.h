// The cuda Ops: NVIDIA cards of compute capability 9.0 (docs/adr/0011-cuda.md). Weights and activations are BF16 there,
// the residual stream, biases, norm weights and logits F32. Thread contract: as ops.h; all work runs on one stream.
#pragma once

#include <memory>
#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace chiasm {

// `threads` must outlive the Ops, the Ops all that it made. kUnavailable naming what is missing.
Result<std::unique_ptr<Ops>> make_cuda_ops(int index, ThreadPool& threads);

// Several cards as a group (ops_group.h), which talk through NCCL; two or more indices, all different.
Result<std::unique_ptr<Ops>> make_cuda_group_ops(std::span<const int> indices, ThreadPool& threads);

}  // namespace chiasm
