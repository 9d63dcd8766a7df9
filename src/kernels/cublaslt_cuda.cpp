#include "kernels/cublaslt_cuda.h"

#include <string>

#include "kernels/shared_library_cuda.h"

namespace chiasm {

Status CublasLt::open() {
  const std::string name = "libcublasLt.so." + std::to_string(CUDART_VERSION / 1000);
  ASSIGN_OR_RETURN(SharedLibrary library, SharedLibrary::open(name));
  library.find(create, "cublasLtCreate");
  library.find(destroy, "cublasLtDestroy");
  library.find(matmul, "cublasLtMatmul");
  library.find(suggest, "cublasLtMatmulAlgoGetHeuristic");
  library.find(product_create, "cublasLtMatmulDescCreate");
  library.find(product_destroy, "cublasLtMatmulDescDestroy");
  library.find(product_set, "cublasLtMatmulDescSetAttribute");
  library.find(layout_create, "cublasLtMatrixLayoutCreate");
  library.find(layout_destroy, "cublasLtMatrixLayoutDestroy");
  library.find(preference_create, "cublasLtMatmulPreferenceCreate");
  library.find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
  library.find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
  if (!library.missing().empty()) return fail(Code::kUnavailable, "{} lacks {}", name, library.missing());
  return {};
}

}  // namespace chiasm
