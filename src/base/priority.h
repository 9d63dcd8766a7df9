// Work that lets other work of this process pass first.
//
// Thread contract: any thread; lower_priority() concerns the calling one and those it starts later.
#pragma once

#include <memory>

#include "base/thread_pool.h"

namespace chiasm {

// The calling thread computes behind others: with all cores busy it gets about a tenth of what each of them gets, on an
// idle machine all. Without effect where the system knows no priority of single threads.
void lower_priority();

// A pool whose own threads have lower_priority(). Who calls parallel_for works at its own priority.
std::unique_ptr<ThreadPool> make_background_pool(int threads);

}  // namespace chiasm
