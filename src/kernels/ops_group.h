// Several Ops as one: tensor parallelism (Megatron-LM, arXiv 1909.08053) with weights that are divided among members as
// their Split says. Everything else is done by every member alike.
//
// One thread hands each operation to all members before the next, so that members whose work is still under way never
// wait for one that was not asked yet, and what fails for one fails for all. A view of the group shows the first
// member's memory; the others' has the same shape. Thread contract: as ops.h.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/collective.h"
#include "kernels/ops.h"

namespace chiasm {

// Two or more members of one kind. `threads` must outlive the group.
std::unique_ptr<Ops> make_group_ops(std::vector<std::unique_ptr<Ops>> members, std::unique_ptr<Collective> collective,
                                    ThreadPool& threads);

}  // namespace chiasm
