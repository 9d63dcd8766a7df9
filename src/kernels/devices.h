// From the name of a device, as users write it, to its Ops. Thread contract: pure functions.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace chiasm {

// kInvalidArgument unless it is "auto", "cpu" or "cuda:N" ("cuda" is "cuda:0").
Status check_device(std::string_view device);

// "auto": the first card where this build and this machine have one that can be used, else the CPU. A card that was
// asked for and is not there is kUnavailable, with what is missing. `threads` must outlive the Ops.
Result<std::unique_ptr<Ops>> make_ops(std::string_view device, ThreadPool& threads);

}  // namespace chiasm
