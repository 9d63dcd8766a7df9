// The few functions of NCCL that are used, declared as its ABI has them (nccl.h of NCCL 2) and found by name when they
// are first needed: programs start without the library. Thread contract: as NCCL's.
#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

#include "base/result.h"

namespace chiasm {

struct NcclComm;  // ncclComm of the library

struct Nccl {
  static constexpr int kFloat32 = 7;  // ncclDataType_t
  static constexpr int kSum = 0;      // ncclRedOp_t

  int (*comm_init_all)(NcclComm** comms, int count, const int* devices) = nullptr;
  int (*comm_destroy)(NcclComm* comm) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*all_reduce)(const void* from, void* to, std::size_t count, int type, int op, NcclComm* comm,
                    cudaStream_t stream) = nullptr;
  int (*reduce)(const void* from, void* to, std::size_t count, int type, int op, int root, NcclComm* comm,
                cudaStream_t stream) = nullptr;
  const char* (*error_text)(int result) = nullptr;
  const char* (*last_error)(NcclComm* comm) = nullptr;

  // kUnavailable naming what is missing.
  Status open();
};

}  // namespace chiasm
