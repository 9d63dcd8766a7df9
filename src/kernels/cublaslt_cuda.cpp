#include "kernels/cublaslt_cuda.h"

#include <string>
#include <type_traits>

#include <dlfcn.h>

namespace chiasm {

Status CublasLt::open() {
  const std::string name = "libcublasLt.so." + std::to_string(CUDART_VERSION / 1000);
  void* const library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);  // kept until the program ends
  if (library == nullptr) {
    const char* const why = ::dlerror();
    return fail(Code::kUnavailable, "{} cannot be loaded: {}", name, why == nullptr ? "no reason given" : why);
  }
  std::string missing;
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(::dlsym(library, symbol));
    if (function == nullptr && missing.empty()) missing = symbol;
  };
  find(create, "cublasLtCreate");
  find(destroy, "cublasLtDestroy");
  find(matmul, "cublasLtMatmul");
  find(suggest, "cublasLtMatmulAlgoGetHeuristic");
  find(product_create, "cublasLtMatmulDescCreate");
  find(product_destroy, "cublasLtMatmulDescDestroy");
  find(product_set, "cublasLtMatmulDescSetAttribute");
  find(layout_create, "cublasLtMatrixLayoutCreate");
  find(layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(preference_create, "cublasLtMatmulPreferenceCreate");
  find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
  if (!missing.empty()) return fail(Code::kUnavailable, "{} lacks {}", name, missing);
  return {};
}

}  // namespace chiasm
