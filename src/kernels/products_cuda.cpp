#include "kernels/products_cuda.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include <cublasLt.h>
#include <dlfcn.h>

namespace chiasm {
namespace {

constexpr std::size_t kWorkspace = 32 << 20;  // what cuBLAS advises for Hopper
constexpr std::uint64_t kFewestRows = 16;     // an algorithm is chosen for at least so many
constexpr std::size_t kMostPlans = 4096;      // shapes remembered; a server's steps have many sizes

// The functions of the library, by name.
struct Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;

  Status open() {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* handle = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);  // kept until the program ends
    if (handle == nullptr) {
      const char* why = ::dlerror();
      return fail(Code::kUnavailable, "{} cannot be loaded: {}", name, why == nullptr ? "no reason given" : why);
    }
    bool all = true;
    const auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(::dlsym(handle, symbol));
      all &= function != nullptr;
    };
    find(create, "cublasLtCreate"), find(destroy, "cublasLtDestroy"), find(matmul, "cublasLtMatmul");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(desc_create, "cublasLtMatmulDescCreate"), find(desc_destroy, "cublasLtMatmulDescDestroy");
    find(desc_set, "cublasLtMatmulDescSetAttribute");
    find(layout_create, "cublasLtMatrixLayoutCreate"), find(layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(preference_create, "cublasLtMatmulPreferenceCreate");
    find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    if (!all) return fail(Code::kUnavailable, "{} lacks functions of its version {}", name, CUBLAS_VER_MAJOR);
    return {};
  }
};

// One shape: its descriptions and the algorithm. Destroyed by the owner, who has the library.
struct Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool possible = false;
};

class LtProducts final : public CudaProducts {
 public:
  ~LtProducts() override {
    clear();
    if (handle_ != nullptr) library_.destroy(handle_);
    if (workspace_ != nullptr) cudaFree(workspace_);
  }

  Status start() {
    RETURN_IF_ERROR(library_.open());
    if (const cublasStatus_t status = library_.create(&handle_); status != CUBLAS_STATUS_SUCCESS)
      return fail(Code::kUnavailable, "cublasLtCreate: status {}", static_cast<int>(status));
    if (const cudaError_t error = cudaMalloc(&workspace_, kWorkspace); error != cudaSuccess)
      return fail(Code::kResourceExhausted, "no {} bytes for cuBLASLt: {}", kWorkspace, cudaGetErrorString(error));
    return {};
  }

  Result<bool> multiply(const CudaView& x, const void* weight, const void* bias, bool add_to_out, bool split,
                        const CudaView& out, cudaStream_t stream) override {
    const std::lock_guard lock(mutex_);
    const Key key{x.rows,   x.cols,     out.cols,
                  x.stride, out.stride, (out.f32 ? 1 : 0) | (bias != nullptr ? 2 : 0) | (split ? 4 : 0)};
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      if (plans_.size() >= kMostPlans) clear();
      ASSIGN_OR_RETURN(const Plan made, plan(x, bias != nullptr, split, out));
      found = plans_.emplace(key, made).first;
    }
    const Plan& plan = found->second;
    if (!plan.possible) return false;
    if (bias != nullptr)
      library_.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(&bias), sizeof(bias));
    const float alpha = 1, beta = add_to_out ? 1 : 0;
    const cublasStatus_t status =
        library_.matmul(handle_, plan.desc, &alpha, weight, plan.weight, x.data, plan.x, &beta, out.data, plan.out,
                        out.data, plan.out, &plan.algorithm, workspace_, kWorkspace, stream);
    if (status != CUBLAS_STATUS_SUCCESS)
      return fail(Code::kInternal, "cublasLtMatmul of {} x {} x {}: status {}", x.rows, out.cols, x.cols,
                  static_cast<int>(status));
    return true;
  }

 private:
  using Key = std::array<std::int64_t, 6>;

  // In cuBLAS' column-major eyes: out [n, m] = weight [k, n]^T * x [k, m].
  Result<Plan> plan(const CudaView& x, bool bias, bool split, const CudaView& out) {
    Plan made;
    const cudaDataType_t out_type = out.f32 ? CUDA_R_32F : CUDA_R_16BF;
    const auto m = static_cast<std::uint64_t>(x.rows), n = static_cast<std::uint64_t>(out.cols),
               k = static_cast<std::uint64_t>(x.cols);
    bool ok = library_.desc_create(&made.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    ok = ok && set(made.desc, CUBLASLT_MATMUL_DESC_TRANSA, transposed) &&
         set(made.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue) &&
         (!bias || set(made.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, out_type)) &&
         layout(made.weight, CUDA_R_16BF, k, n, x.cols) && layout(made.x, CUDA_R_16BF, k, m, x.stride) &&
         layout(made.out, out_type, n, m, out.stride);
    cublasLtMatmulPreference_t preference = nullptr;
    ok = ok && library_.preference_create(&preference) == CUBLAS_STATUS_SUCCESS;
    const std::uint32_t schemes = split ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_NONE;
    ok = ok && prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace) &&
         prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    // Rows of views begin wherever 16 bytes do.
    for (const auto operand : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      ok = ok && prefer(preference, operand, std::uint32_t{16});
    if (!ok) {
      destroy(made);
      return fail(Code::kInternal, "cuBLASLt does not take a product of {} x {} x {}", m, n, k);
    }
    // For the fewest rows it would name kernels that sum in another order: asked as if there were more, it does not.
    Plan asked;
    const std::uint64_t fewest = split ? 1 : kFewestRows;
    ok = layout(asked.x, CUDA_R_16BF, k, std::max(m, fewest), x.stride) &&
         layout(asked.out, out_type, n, std::max(m, fewest), out.stride);
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t status = ok ? library_.heuristic(handle_, made.desc, made.weight, asked.x, asked.out,
                                                          asked.out, preference, 1, &result, &count)
                                     : CUBLAS_STATUS_INTERNAL_ERROR;
    library_.preference_destroy(preference);
    destroy(asked);
    made.possible = status == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    made.algorithm = result.algo;
    return made;
  }

  template <class T>
  bool set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    return library_.desc_set(desc, attribute, &value, sizeof(value)) == CUBLAS_STATUS_SUCCESS;
  }
  template <class T>
  bool prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
              const T& value) const {
    return library_.preference_set(preference, attribute, &value, sizeof(value)) == CUBLAS_STATUS_SUCCESS;
  }
  bool layout(cublasLtMatrixLayout_t& out, cudaDataType_t type, std::uint64_t rows, std::uint64_t cols,
              std::int64_t stride) const {
    return library_.layout_create(&out, type, rows, cols, stride) == CUBLAS_STATUS_SUCCESS;
  }

  void destroy(const Plan& plan) const {
    for (const cublasLtMatrixLayout_t one : {plan.weight, plan.x, plan.out})
      if (one != nullptr) library_.layout_destroy(one);
    if (plan.desc != nullptr) library_.desc_destroy(plan.desc);
  }
  void clear() {
    for (const auto& [key, plan] : plans_) destroy(plan);
    plans_.clear();
  }

  Library library_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::mutex mutex_;
  std::map<Key, Plan> plans_;
};

}  // namespace

Result<std::unique_ptr<CudaProducts>> CudaProducts::load() {
  auto out = std::make_unique<LtProducts>();
  RETURN_IF_ERROR(out->start());
  return out;
}

}  // namespace chiasm
