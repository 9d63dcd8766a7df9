// Angles of rotary position embedding: one axis' frequencies, and tables of cos and sin in the memory of an Ops.
//
// Computed in f32 step by step as the reference implementation does, so that large positions turn by the same angle.
// Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace chiasm {

// 1 / theta^(2 i / dim) for i in [0, dim / 2).
std::vector<float> inverse_frequencies(double theta, std::int64_t dim);

// cos and sin, [rows, pairs] each, owned.
struct RotaryTable {
  Buffer cos, sin;
  RopeTable view() const { return {cos.view(), sin.view()}; }
};

// The table of `rows` rows of these angles, in the memory of `ops`.
Result<RotaryTable> make_rotary_table(const Ops& ops, std::int64_t rows, const RopeAngles& angles);

}  // namespace chiasm
