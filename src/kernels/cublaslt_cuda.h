// The few functions of cuBLASLt that are used, declared as its ABI has them (cublasLt.h of CUDA 13, which a toolkit
// without the library lacks) and found by name when they are first needed: programs start without the library. Thread
// contract: as cuBLASLt's.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>
#include <library_types.h>

#include "base/result.h"

namespace chiasm {

// What the library hands out, each behind a pointer.
struct LtHandle;
struct LtProduct;     // cublasLtMatmulDesc_t
struct LtLayout;      // cublasLtMatrixLayout_t
struct LtPreference;  // cublasLtMatmulPreference_t

struct LtAlgorithm {  // cublasLtMatmulAlgo_t
  std::uint64_t data[8];
};
struct LtSuggestion {  // cublasLtMatmulHeuristicResult_t
  LtAlgorithm algorithm;
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

struct CublasLt {
  static constexpr int kSuccess = 0;      // cublasStatus_t
  static constexpr int kCompute32F = 68;  // cublasComputeType_t
  static constexpr int kTransposed = 1;   // cublasOperation_t
  enum ProductAttribute : int { kTransA = 3, kEpilogue = 7, kBiasPointer = 8, kBiasType = 26 };
  static constexpr std::int32_t kNoEpilogue = 1, kBiasEpilogue = 4;  // cublasLtEpilogue_t
  enum PreferenceAttribute : int {
    kMostWorkspace = 1,
    kReductionSchemes = 3,
    kAlignmentA = 5,
    kAlignmentB,
    kAlignmentC,
    kAlignmentD
  };
  static constexpr std::uint32_t kNoReduction = 0, kAnyReduction = 7;  // cublasLtReductionScheme_t

  int (*create)(LtHandle** handle) = nullptr;
  int (*destroy)(LtHandle* handle) = nullptr;
  int (*matmul)(LtHandle* handle, LtProduct* product, const void* alpha, const void* a, LtLayout* a_layout,
                const void* b, LtLayout* b_layout, const void* beta, const void* c, LtLayout* c_layout, void* d,
                LtLayout* d_layout, const LtAlgorithm* algorithm, void* workspace, std::size_t workspace_bytes,
                cudaStream_t stream) = nullptr;
  int (*suggest)(LtHandle* handle, LtProduct* product, LtLayout* a, LtLayout* b, LtLayout* c, LtLayout* d,
                 LtPreference* preference, int asked, LtSuggestion* out, int* count) = nullptr;
  int (*product_create)(LtProduct** product, int compute_type, cudaDataType_t scale_type) = nullptr;
  int (*product_destroy)(LtProduct* product) = nullptr;
  int (*product_set)(LtProduct* product, ProductAttribute attribute, const void* value, std::size_t bytes) = nullptr;
  int (*layout_create)(LtLayout** layout, cudaDataType_t type, std::uint64_t rows, std::uint64_t cols,
                       std::int64_t leading) = nullptr;
  int (*layout_destroy)(LtLayout* layout) = nullptr;
  int (*preference_create)(LtPreference** preference) = nullptr;
  int (*preference_destroy)(LtPreference* preference) = nullptr;
  int (*preference_set)(LtPreference* preference, PreferenceAttribute attribute, const void* value,
                        std::size_t bytes) = nullptr;

  // kUnavailable naming what is missing.
  Status open();
};

}  // namespace chiasm
