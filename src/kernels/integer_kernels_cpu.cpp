#include "kernels/integer_kernels_cpu.h"

#include <vector>

namespace chiasm {

std::span<const IntegerKernel* const> integer_kernels() {
  static const std::vector<const IntegerKernel*> kKernels = [] {
    std::vector<const IntegerKernel*> out;
    for (const IntegerKernel* kernel :
         {amx_integer_kernel(), avx512_vnni_integer_kernel(), avx2_integer_kernel(), &highway_integer_kernel()})
      if (kernel != nullptr) out.push_back(kernel);
    return out;
  }();
  return kKernels;
}

}  // namespace chiasm
