// From the name of a device, as users write it, to its Ops. Thread contract: pure functions.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace chiasm {

// kInvalidArgument unless it is "auto", "cpu", "cuda:N" ("cuda" is "cuda:0"), or several devices that compute together
// (ops_group.h): "cuda:0,1". "cpu,cpu" is such a group without a card, for tests.
Status check_device(std::string_view device);
// The same where it has to be one.
Status check_one_device(std::string_view device);

// The first of several, else the one that is named.
std::string first_device(std::string_view device);

// "auto": the first card where this build and this machine have one that can be used, else the CPU. A card that was
// asked for and is not there is kUnavailable, with what is missing. `threads` must outlive the Ops.
Result<std::unique_ptr<Ops>> make_ops(std::string_view device, ThreadPool& threads);

}  // namespace chiasm
