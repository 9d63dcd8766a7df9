#include "kernels/nccl_cuda.h"

#include <cstdlib>
#include <string>

#include "kernels/shared_library_cuda.h"

namespace chiasm {

Status Nccl::open() {
  // Graphs of several cards are launched by one thread, which hangs where NCCL orders them among each other and among
  // what is not in a graph (NCCL's user guide, "Using NCCL with CUDA Graphs"). Here no two are ever under way at once.
  ::setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 0);
  constexpr const char* kName = "libnccl.so.2";
  ASSIGN_OR_RETURN(SharedLibrary library,
                   SharedLibrary::open(kName, std::string("several cards need ") + kName + ", which"));
  library.find(comm_init_all, "ncclCommInitAll");
  library.find(comm_destroy, "ncclCommDestroy");
  library.find(group_start, "ncclGroupStart");
  library.find(group_end, "ncclGroupEnd");
  library.find(all_reduce, "ncclAllReduce");
  library.find(reduce, "ncclReduce");
  library.find(error_text, "ncclGetErrorString");
  library.find(last_error, "ncclGetLastError");
  if (!library.missing().empty()) return fail(Code::kUnavailable, "{} lacks functions of NCCL 2.13", kName);
  return {};
}

}  // namespace chiasm
