#include "kernels/products_cuda.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "kernels/cublaslt_cuda.h"

namespace chiasm {
namespace {

constexpr std::size_t kWorkspace = 32 << 20;  // what cuBLAS advises for Hopper
constexpr std::uint64_t kFewestRows = 16;     // an algorithm is chosen for at least so many
constexpr std::size_t kMostPlans = 4096;      // shapes remembered; a server's steps have many sizes

// One shape: its descriptions and the algorithm. Destroyed by the owner, who has the library.
struct Plan {
  LtProduct* product = nullptr;
  LtLayout *weight = nullptr, *x = nullptr, *out = nullptr;
  LtAlgorithm algorithm{};
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
    if (const int status = library_.create(&handle_); status != CublasLt::kSuccess)
      return fail(Code::kUnavailable, "cublasLtCreate: status {}", status);
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
      library_.product_set(plan.product, CublasLt::kBiasPointer, static_cast<const void*>(&bias), sizeof(bias));
    const float alpha = 1, beta = add_to_out ? 1 : 0;
    const int status =
        library_.matmul(handle_, plan.product, &alpha, weight, plan.weight, x.data, plan.x, &beta, out.data, plan.out,
                        out.data, plan.out, &plan.algorithm, workspace_, kWorkspace, stream);
    if (status != CublasLt::kSuccess)
      return fail(Code::kInternal, "cublasLtMatmul of {} x {} x {}: status {}", x.rows, out.cols, x.cols, status);
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
    bool ok = library_.product_create(&made.product, CublasLt::kCompute32F, CUDA_R_32F) == CublasLt::kSuccess;
    const std::int32_t epilogue = bias ? CublasLt::kBiasEpilogue : CublasLt::kNoEpilogue;
    ok = ok && set(made.product, CublasLt::kTransA, std::int32_t{CublasLt::kTransposed}) &&
         set(made.product, CublasLt::kEpilogue, epilogue) &&
         (!bias || set(made.product, CublasLt::kBiasType, out_type)) &&
         layout(made.weight, CUDA_R_16BF, k, n, x.cols) && layout(made.x, CUDA_R_16BF, k, m, x.stride) &&
         layout(made.out, out_type, n, m, out.stride);
    LtPreference* preference = nullptr;
    ok = ok && library_.preference_create(&preference) == CublasLt::kSuccess;
    const std::uint32_t schemes = split ? CublasLt::kAnyReduction : CublasLt::kNoReduction;
    ok = ok && prefer(preference, CublasLt::kMostWorkspace, kWorkspace) &&
         prefer(preference, CublasLt::kReductionSchemes, schemes);
    // Rows of views begin wherever 16 bytes do.
    for (const auto operand :
         {CublasLt::kAlignmentA, CublasLt::kAlignmentB, CublasLt::kAlignmentC, CublasLt::kAlignmentD})
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
    LtSuggestion result{};
    int count = 0;
    const int status = ok ? library_.suggest(handle_, made.product, made.weight, asked.x, asked.out, asked.out,
                                             preference, 1, &result, &count)
                          : -1;
    library_.preference_destroy(preference);
    destroy(asked);
    made.possible = status == CublasLt::kSuccess && count > 0 && result.state == CublasLt::kSuccess;
    made.algorithm = result.algorithm;
    return made;
  }

  template <class T>
  bool set(LtProduct* product, CublasLt::ProductAttribute attribute, const T& value) const {
    return library_.product_set(product, attribute, &value, sizeof(value)) == CublasLt::kSuccess;
  }
  template <class T>
  bool prefer(LtPreference* preference, CublasLt::PreferenceAttribute attribute, const T& value) const {
    return library_.preference_set(preference, attribute, &value, sizeof(value)) == CublasLt::kSuccess;
  }
  bool layout(LtLayout*& out, cudaDataType_t type, std::uint64_t rows, std::uint64_t cols, std::int64_t stride) const {
    return library_.layout_create(&out, type, rows, cols, stride) == CublasLt::kSuccess;
  }

  void destroy(const Plan& plan) const {
    for (LtLayout* const one : {plan.weight, plan.x, plan.out})
      if (one != nullptr) library_.layout_destroy(one);
    if (plan.product != nullptr) library_.product_destroy(plan.product);
  }
  void clear() {
    for (const auto& [key, plan] : plans_) destroy(plan);
    plans_.clear();
  }

  CublasLt library_;
  LtHandle* handle_ = nullptr;
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
