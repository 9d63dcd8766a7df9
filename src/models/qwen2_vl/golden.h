// For tests: the reference's stages for the demo checkpoint (tests/goldens/toytown, or the one outside the repository
// that CHIASM_SHARED names), and the implementations of Ops that every golden holds for.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"
#include "models/layout.h"
#include "tensor/safetensors.h"

namespace chiasm {

// One picture with its question, as the reference saw them.
struct GoldenPicture {
  std::string name;
  Grid grid;
  std::vector<std::int32_t> input_ids, generated_ids;
  std::int64_t rope_delta = 0;
};

struct GoldenSet {
  std::filesystem::path model_dir, goldens_dir;
  std::unique_ptr<SafetensorsFile> tensors;
  std::vector<GoldenPicture> pictures;          // those with tensors
  double features_limit = 0, logits_limit = 0;  // the allowed relative L2
};

// Tensor "PICTURE/stage" as f32 in a matrix of its first dimension's rows (one row for a vector).
Matrix golden_matrix(const SafetensorsFile& file, const std::string& picture, const std::string& stage);

// Whether an I32 tensor holds these rows.
bool golden_equals(const SafetensorsFile& file, const std::string& name,
                   const std::array<std::vector<std::int32_t>, 3>& rows);

// `where` is "committed" or "shared". Absent: null, and `why` says what is missing.
std::unique_ptr<GoldenSet> find_golden_set(const std::string& where, std::string& why);

// An Ops by name ("ref", "cpu", "group": two that share a language model) with what it stands on.
struct TestOps {
  std::unique_ptr<ThreadPool> threads;
  std::unique_ptr<Ops> ops;
};
TestOps make_test_ops(const std::string& name);

// The plain loops have no threads that the thread sanitizer could watch, and take a quarter of an hour under it.
inline bool pointless_here([[maybe_unused]] const std::string& ops) {
#ifdef __SANITIZE_THREAD__
  return ops == "ref";
#else
  return false;
#endif
}

// A test of one Ops on one golden set; skips where the set is absent (`golden_` is null then).
class GoldenTest : public testing::TestWithParam<std::tuple<std::string, std::string>> {  // Ops, golden set
 public:
  static auto everywhere() {
    return testing::Values(ParamType("ref", "committed"), ParamType("cpu", "committed"),
                           ParamType("group", "committed"), ParamType("cpu", "shared"));
  }
  static std::string name_of(const testing::TestParamInfo<ParamType>& info) {
    return std::get<0>(info.param) + "_" + std::get<1>(info.param);
  }

 protected:
  void SetUp() override {
    if (pointless_here(std::get<0>(GetParam()))) GTEST_SKIP() << "the plain loops have no threads";
    std::string why;
    golden_ = find_golden_set(std::get<1>(GetParam()), why);
    if (golden_ == nullptr) GTEST_SKIP() << why;
    ops_ = make_test_ops(std::get<0>(GetParam()));
  }

  std::unique_ptr<GoldenSet> golden_;
  TestOps ops_;
};

// |a - b| / |b|, in double.
double relative_l2(ConstMatrixView a, ConstMatrixView b);

// Whether the bits are the same, shapes included.
bool same_bits(ConstMatrixView a, ConstMatrixView b);

}  // namespace chiasm
