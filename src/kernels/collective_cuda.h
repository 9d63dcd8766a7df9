// Sums over cards. Thread contract: as collective.h.
#pragma once

#include <memory>
#include <vector>

#include "kernels/collective.h"
#include "kernels/device_cuda.h"

namespace chiasm {

// Through NCCL, on each card's stream. The devices must outlive it. kUnavailable naming what is missing.
Result<std::unique_ptr<Collective>> make_cuda_collective(std::vector<const CudaDevice*> devices);

}  // namespace chiasm
