#include "kernels/nccl_cuda.h"

#include <cstdlib>
#include <type_traits>

#include <dlfcn.h>

namespace chiasm {

Status Nccl::open() {
  // Graphs of several cards are launched by one thread, which hangs where NCCL orders them among each other and among
  // what is not in a graph (NCCL's user guide, "Using NCCL with CUDA Graphs"). Here no two are ever under way at once.
  ::setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 0);
  constexpr const char* kName = "libnccl.so.2";
  void* handle = ::dlopen(kName, RTLD_NOW | RTLD_LOCAL);  // kept until the program ends
  if (handle == nullptr) {
    const char* why = ::dlerror();
    return fail(Code::kUnavailable, "several cards need {}, which cannot be loaded: {}", kName,
                why == nullptr ? "no reason given" : why);
  }
  bool all = true;
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(::dlsym(handle, symbol));
    all &= function != nullptr;
  };
  find(comm_init_all, "ncclCommInitAll"), find(comm_destroy, "ncclCommDestroy");
  find(group_start, "ncclGroupStart"), find(group_end, "ncclGroupEnd");
  find(all_reduce, "ncclAllReduce"), find(reduce, "ncclReduce");
  find(error_text, "ncclGetErrorString"), find(last_error, "ncclGetLastError");
  if (!all) return fail(Code::kUnavailable, "{} lacks functions of NCCL 2.13", kName);
  return {};
}

}  // namespace chiasm
