#include "kernels/rowwise_cpu.h"

#include <cmath>

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rowwise_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "kernels/exp_cpu-inl.h"
#include "kernels/tile_cpu-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

// Sums run in one vector of partial sums, then across its lanes: an order that depends on `count` alone.
float sum_of(const float* x, std::int64_t count) {
  const F32 d;
  VF32 partial = hn::Zero(d);
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) partial = hn::Add(partial, hn::LoadU(d, x + j));
  float total = hn::GetLane(hn::SumOfLanes(d, partial));
  for (; j < count; ++j) total += x[j];
  return total;
}

float squared_distance(const float* x, float mean, std::int64_t count) {
  const F32 d;
  VF32 partial = hn::Zero(d);
  const VF32 center = hn::Set(d, mean);
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    const VF32 delta = hn::Sub(hn::LoadU(d, x + j), center);
    partial = hn::MulAdd(delta, delta, partial);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, partial));
  for (; j < count; ++j) total += (x[j] - mean) * (x[j] - mean);
  return total;
}

void layer_norm(ConstMatrixView x, const float* weight, const float* bias, float eps, MatrixView out) {
  const F32 d;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const float* from = x.row(i);
    float* to = out.row(i);
    const float mean = sum_of(from, x.cols) / static_cast<float>(x.cols);
    const float variance = squared_distance(from, mean, x.cols) / static_cast<float>(x.cols);
    const float scale = 1.0F / std::sqrt(variance + eps);
    std::int64_t j = 0;
    for (; j + kLanes <= x.cols; j += kLanes) {
      const VF32 v = hn::Mul(hn::Sub(hn::LoadU(d, from + j), hn::Set(d, mean)), hn::Set(d, scale));
      hn::StoreU(hn::MulAdd(v, hn::LoadU(d, weight + j), hn::LoadU(d, bias + j)), d, to + j);
    }
    for (; j < x.cols; ++j) to[j] = (from[j] - mean) * scale * weight[j] + bias[j];
  }
}

void rms_norm(ConstMatrixView x, const float* weight, float eps, MatrixView out) {
  const F32 d;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const float* from = x.row(i);
    float* to = out.row(i);
    const float mean_square = squared_distance(from, 0.0F, x.cols) / static_cast<float>(x.cols);
    const float scale = 1.0F / std::sqrt(mean_square + eps);
    std::int64_t j = 0;
    for (; j + kLanes <= x.cols; j += kLanes) {
      const VF32 v = hn::Mul(hn::LoadU(d, from + j), hn::Set(d, scale));
      hn::StoreU(hn::Mul(v, hn::LoadU(d, weight + j)), d, to + j);
    }
    for (; j < x.cols; ++j) to[j] = from[j] * scale * weight[j];
  }
}

void silu_mul(ConstMatrixView gate, ConstMatrixView up, MatrixView out) {
  const F32 d;
  const VF32 one = hn::Set(d, 1.0F);
  for (std::int64_t i = 0; i < gate.rows; ++i) {
    const float *g = gate.row(i), *u = up.row(i);
    float* to = out.row(i);
    std::int64_t j = 0;
    for (; j + kLanes <= gate.cols; j += kLanes) {
      const VF32 v = hn::LoadU(d, g + j);
      const VF32 silu = hn::Div(v, hn::Add(one, exp_within_range(hn::Neg(v))));
      hn::StoreU(hn::Mul(silu, hn::LoadU(d, u + j)), d, to + j);
    }
    for (; j < gate.cols; ++j) to[j] = g[j] / (1.0F + std::exp(-g[j])) * u[j];
  }
}

void rope(MatrixView x, std::int64_t heads, ConstMatrixView cos_table, ConstMatrixView sin_table) {
  const F32 d;
  const std::int64_t half = cos_table.cols;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const float *cos = cos_table.row(i), *sin = sin_table.row(i);
    for (std::int64_t h = 0; h < heads; ++h) {
      float *a = x.row(i) + 2 * half * h, *b = a + half;
      std::int64_t j = 0;
      for (; j + kLanes <= half; j += kLanes) {
        const VF32 c = hn::LoadU(d, cos + j), s = hn::LoadU(d, sin + j);
        const VF32 va = hn::LoadU(d, a + j), vb = hn::LoadU(d, b + j);
        hn::StoreU(hn::MulSub(va, c, hn::Mul(vb, s)), d, a + j);
        hn::StoreU(hn::MulAdd(vb, c, hn::Mul(va, s)), d, b + j);
      }
      for (; j < half; ++j) {
        const float va = a[j], vb = b[j];
        a[j] = va * cos[j] - vb * sin[j];
        b[j] = vb * cos[j] + va * sin[j];
      }
    }
  }
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {

HWY_EXPORT(layer_norm);
HWY_EXPORT(rms_norm);
HWY_EXPORT(silu_mul);
HWY_EXPORT(rope);

void layer_norm_cpu(ConstMatrixView x, const float* weight, const float* bias, float eps, MatrixView out) {
  HWY_DYNAMIC_DISPATCH(layer_norm)(x, weight, bias, eps, out);
}
void rms_norm_cpu(ConstMatrixView x, const float* weight, float eps, MatrixView out) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(x, weight, eps, out);
}
void silu_mul_cpu(ConstMatrixView gate, ConstMatrixView up, MatrixView out) {
  HWY_DYNAMIC_DISPATCH(silu_mul)(gate, up, out);
}
void rope_cpu(MatrixView x, std::int64_t heads, ConstMatrixView cos, ConstMatrixView sin) {
  HWY_DYNAMIC_DISPATCH(rope)(x, heads, cos, sin);
}

}  // namespace chiasm
#endif  // HWY_ONCE
