// Row operations on the card. One block a row for norms, so that a row's sums never depend on its company.
#include <algorithm>

#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

template <class T>
T* at(const CudaView& v) {
  return static_cast<T*>(v.data);
}

// Calls f with pointers of the views' types.
template <class F>
cudaError_t by_dtype(CudaView x, CudaView out, const F& f) {
  const bool x32 = x.f32, out32 = out.f32;
  if (x32 && out32) f(at<float>(x), at<float>(out));
  if (x32 && !out32) f(at<float>(x), at<bf16>(out));
  if (!x32 && out32) f(at<bf16>(x), at<float>(out));
  if (!x32 && !out32) f(at<bf16>(x), at<bf16>(out));
  return cudaGetLastError();
}

// Whether rows can be read 8 values at a time.
bool vectorizable(const CudaView& v) {
  const std::int64_t per_16 = v.f32 ? 4 : 8;
  return v.cols % 8 == 0 && v.stride % per_16 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
}

int threads_for(std::int64_t cols) {
  const std::int64_t wanted = (cols / 8 + kWarp - 1) / kWarp * kWarp;
  return static_cast<int>(wanted < 64 ? 64 : wanted > 512 ? 512 : wanted);
}

// kLayer: (x - mean) / sqrt(var + eps) * weight + bias, else x / sqrt(mean(x^2) + eps) * weight. The row is read from
// memory once where it fits the registers (kItems vectors a thread), and again from the cache otherwise.
template <class In, class Out, bool kLayer, int kVector>
__global__ void norm_kernel(const In* x, std::int64_t x_stride, std::int64_t cols, const float* weight,
                            const float* bias, float eps, Out* out, std::int64_t out_stride) {
  let_next_begin();
  wait_for_previous();
  __shared__ float scratch[32];
  x += blockIdx.x * x_stride;
  out += blockIdx.x * out_stride;
  const int n = static_cast<int>(cols) / kVector;
  constexpr int kItems = 2;
  float kept[kItems][kVector];
  const auto load = [&](int i, float* v) {
    if constexpr (kVector == 8) {
      load8(x + i * 8, v);
    } else {
      v[0] = to_float(x[i]);
    }
  };
  float sum = 0;
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    const int i = static_cast<int>(threadIdx.x) + item * static_cast<int>(blockDim.x);
    if (i >= n) continue;
    load(i, kept[item]);
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += kLayer ? kept[item][j] : kept[item][j] * kept[item][j];
  }
  for (int i = static_cast<int>(threadIdx.x) + kItems * static_cast<int>(blockDim.x); i < n;
       i += static_cast<int>(blockDim.x)) {
    float v[kVector];
    load(i, v);
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += kLayer ? v[j] : v[j] * v[j];
  }
  sum = block_sum(sum, scratch);
  const float count = static_cast<float>(cols);
  float mean = 0, variance = sum / count;
  if constexpr (kLayer) {
    mean = sum / count;
    float squares = 0;
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const int i = static_cast<int>(threadIdx.x) + item * static_cast<int>(blockDim.x);
      if (i >= n) continue;
#pragma unroll
      for (int j = 0; j < kVector; ++j) squares += (kept[item][j] - mean) * (kept[item][j] - mean);
    }
    for (int i = static_cast<int>(threadIdx.x) + kItems * static_cast<int>(blockDim.x); i < n;
         i += static_cast<int>(blockDim.x)) {
      float v[kVector];
      load(i, v);
#pragma unroll
      for (int j = 0; j < kVector; ++j) squares += (v[j] - mean) * (v[j] - mean);
    }
    variance = block_sum(squares, scratch) / count;
  }
  const float inverse = rsqrtf(variance + eps);
  const auto finish = [&](int i, const float* v) {
    float y[kVector];
    float w[kVector], b[kVector];
    if constexpr (kVector == 8) {
      load8(weight + i * 8, w);
      if constexpr (kLayer) load8(bias + i * 8, b);
    } else {
      w[0] = weight[i];
      if constexpr (kLayer) b[0] = bias[i];
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      y[j] = (v[j] - mean) * inverse * w[j];
      if constexpr (kLayer) y[j] += b[j];
    }
    if constexpr (kVector == 8) {
      store8(out + i * 8, y);
    } else {
      out[i] = from_float<Out>(y[0]);
    }
  };
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    const int i = static_cast<int>(threadIdx.x) + item * static_cast<int>(blockDim.x);
    if (i < n) finish(i, kept[item]);
  }
  for (int i = static_cast<int>(threadIdx.x) + kItems * static_cast<int>(blockDim.x); i < n;
       i += static_cast<int>(blockDim.x)) {
    float v[kVector];
    load(i, v);
    finish(i, v);
  }
}

// F32 to BF16, a block a row.
__global__ void rms_kernel(const float* x, std::int64_t x_stride, int cols, const float* weight, float eps, bf16* out,
                           std::int64_t out_stride) {
  extern __shared__ float squares[];
  let_next_begin();
  wait_for_previous();
  rms_norm_row(x + blockIdx.x * x_stride, weight, cols, eps, squares, out + blockIdx.x * out_stride);
}
constexpr std::int64_t kMostRmsColumns = 32768;  // whose squares fit a block's shared memory

// layer_norm from F32 to BF16 of rows that fit the registers of a warp: no barriers. A warp keeps weight and bias,
// which it has before the kernel in front ends, for all its rows.
constexpr int kRowVectors = 12;  // float4s of a lane
constexpr int kNormWarps = 4, kNormBlocks = 384;
__global__ void __launch_bounds__(kNormWarps* kWarp, 3)
    layer_norm_kernel(const float* x, std::int64_t x_stride, std::int64_t rows, int cols, const float* weight,
                      const float* bias, float eps, bf16* out, std::int64_t out_stride) {
  let_next_begin();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, vectors = cols / 4;
  float4 w[kRowVectors], b[kRowVectors];
#pragma unroll
  for (int i = 0; i < kRowVectors; ++i) {
    const int at = min(lane + i * kWarp, vectors - 1);
    w[i] = reinterpret_cast<const float4*>(weight)[at], b[i] = reinterpret_cast<const float4*>(bias)[at];
  }
  wait_for_previous();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  for (std::int64_t row = first; row < rows; row += static_cast<std::int64_t>(gridDim.x) * kNormWarps) {
    const auto* const from = reinterpret_cast<const float4*>(x + row * x_stride);
    float4 v[kRowVectors];
#pragma unroll
    for (int i = 0; i < kRowVectors; ++i) {
      const int at = lane + i * kWarp;
      v[i] = at < vectors ? from[at] : make_float4(0, 0, 0, 0);
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kRowVectors; ++i) sum += v[i].x + v[i].y + (v[i].z + v[i].w);
    const float count = static_cast<float>(cols), mean = warp_sum(sum) / count;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kRowVectors; ++i) {
      if (lane + i * kWarp >= vectors) continue;
      v[i] = make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
      squares += v[i].x * v[i].x + v[i].y * v[i].y + (v[i].z * v[i].z + v[i].w * v[i].w);
    }
    const float inverse = rsqrtf(warp_sum(squares) / count + eps);
#pragma unroll
    for (int i = 0; i < kRowVectors; ++i) {
      const int at = lane + i * kWarp;
      if (at >= vectors) continue;
      reinterpret_cast<uint2*>(out + row * out_stride)[at] =
          make_uint2(pack2(v[i].x * inverse * w[i].x + b[i].x, v[i].y * inverse * w[i].y + b[i].y),
                     pack2(v[i].z * inverse * w[i].z + b[i].z, v[i].w * inverse * w[i].w + b[i].w));
    }
  }
}

template <bool kLayer>
cudaError_t norm(CudaView x, const float* weight, const float* bias, float eps, CudaView out, cudaStream_t s) {
  if (x.rows == 0) return cudaSuccess;
  const auto aligned = [](const float* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const bool wide = vectorizable(x) && vectorizable(out) && aligned(weight) && aligned(bias);
  const auto blocks = static_cast<unsigned>(x.rows);
  if (!kLayer && wide && x.f32 && !out.f32 && x.cols <= kMostRmsColumns)
    return launch_early(rms_kernel, blocks, static_cast<unsigned>(threads_for(2 * x.cols)),
                        static_cast<std::size_t>(x.cols), s, at<float>(x), x.stride, static_cast<int>(x.cols), weight,
                        eps, at<bf16>(out), out.stride);
  if (kLayer && wide && x.f32 && !out.f32 && x.cols <= kRowVectors * kWarp * 4)
    return launch_early(
        layer_norm_kernel,
        static_cast<unsigned>(std::min<std::int64_t>(kNormBlocks, (x.rows + kNormWarps - 1) / kNormWarps)),
        kNormWarps * kWarp, 0, s, at<float>(x), x.stride, x.rows, static_cast<int>(x.cols), weight, bias, eps,
        at<bf16>(out), out.stride);
  return by_dtype(x, out, [&]<class In, class Out>(In* from, Out* to) {
    const int threads = threads_for(wide ? x.cols : x.cols * 8);
    if (wide) {
      launch_early(norm_kernel<In, Out, kLayer, 8>, blocks, threads, 0, s, from, x.stride, x.cols, weight, bias, eps,
                   to, out.stride);
    } else {
      launch_early(norm_kernel<In, Out, kLayer, 1>, blocks, threads, 0, s, from, x.stride, x.cols, weight, bias, eps,
                   to, out.stride);
    }
  });
}

__global__ void silu_mul_kernel(const bf16* gate, const bf16* up, bf16* out, std::int64_t rows, std::int64_t vectors,
                                std::int64_t gate_stride, std::int64_t up_stride, std::int64_t out_stride) {
  let_next_begin();
  wait_for_previous();
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= rows * vectors) return;
  const std::int64_t row = i / vectors, col = i % vectors * 8;
  float g[8], u[8];
  load8(gate + row * gate_stride + col, g);
  load8(up + row * up_stride + col, u);
#pragma unroll
  for (int j = 0; j < 8; ++j) g[j] = silu(g[j]) * u[j];
  store8(out + row * out_stride + col, g);
}

template <class T>
__global__ void silu_mul_any_kernel(const T* gate, const T* up, T* out, std::int64_t rows, std::int64_t cols,
                                    std::int64_t gate_stride, std::int64_t up_stride, std::int64_t out_stride) {
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= rows * cols) return;
  const std::int64_t row = i / cols, col = i % cols;
  const float g = to_float(gate[row * gate_stride + col]), u = to_float(up[row * up_stride + col]);
  out[row * out_stride + col] = from_float<T>(silu(g) * u);
}

__global__ void activate_kernel(bf16* x, std::int64_t rows, std::int64_t vectors, std::int64_t stride, int activation) {
  let_next_begin();
  wait_for_previous();
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= rows * vectors) return;
  bf16* p = x + i / vectors * stride + i % vectors * 8;
  float v[8];
  load8(p, v);
#pragma unroll
  for (int j = 0; j < 8; ++j) v[j] = activate(v[j], activation);
  store8(p, v);
}

template <class T>
__global__ void activate_any_kernel(T* x, std::int64_t rows, std::int64_t cols, std::int64_t stride, int activation) {
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= rows * cols) return;
  T& v = x[i / cols * stride + i % cols];
  v = from_float<T>(activate(to_float(v), activation));
}

// Pairs (a, b) of a head `half` apart; kVector of them a thread.
template <class T, int kVector>
__global__ void rope_kernel(T* x, std::int64_t rows, std::int64_t stride, int heads, int half, const float* cos,
                            const float* sin) {
  let_next_begin();
  wait_for_previous();
  const int per_head = half / kVector;
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= rows * heads * per_head) return;
  const std::int64_t row = i / (heads * per_head);
  const int rest = static_cast<int>(i % (heads * per_head)), head = rest / per_head, j = rest % per_head * kVector;
  T* first = x + row * stride + static_cast<std::int64_t>(head) * 2 * half + j;
  T* second = first + half;
  const float *c = cos + row * half + j, *s = sin + row * half + j;
  float a[kVector], b[kVector], cv[kVector], sv[kVector];
  if constexpr (kVector == 8) {
    load8(first, a), load8(second, b), load8(c, cv), load8(s, sv);
  } else {
    a[0] = to_float(*first), b[0] = to_float(*second), cv[0] = *c, sv[0] = *s;
  }
#pragma unroll
  for (int k = 0; k < kVector; ++k) turn(a[k], b[k], cv[k], sv[k]);
  if constexpr (kVector == 8) {
    store8(first, a), store8(second, b);
  } else {
    *first = from_float<T>(a[0]), *second = from_float<T>(b[0]);
  }
}

__device__ void angle_of(std::int64_t i, const RopeAnglesCuda& angles, std::int64_t rows, int pairs, float* cos,
                         float* sin) {
  if (i >= rows * pairs) return;
  const std::int64_t row = i / pairs;
  const int pair = static_cast<int>(i % pairs);
  const float angle = static_cast<float>(angles.positions[angles.axis[pair] * rows + row]) * angles.frequency[pair];
  cos[i] = cosf(angle);
  sin[i] = sinf(angle);
}

__global__ void rope_table_kernel(const RopeAnglesCuda angles, std::int64_t rows, int pairs, float* cos, float* sin) {
  let_next_begin();
  wait_for_previous();
  angle_of(blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x, angles, rows, pairs, cos, sin);
}

template <class In, class Out, int kVector>
__device__ void copy_vector(std::int64_t i, const In* from, std::int64_t from_stride, const std::int32_t* rows,
                            std::int64_t count, std::int64_t cols, Out* out, std::int64_t out_stride) {
  const std::int64_t vectors = cols / kVector;
  if (i >= count * vectors) return;
  const std::int64_t row = i / vectors, col = i % vectors * kVector;
  const In* p = from + (rows == nullptr ? row : rows[row]) * from_stride + col;
  if constexpr (kVector == 8) {
    float v[8];
    load8(p, v);
    store8(out + row * out_stride + col, v);
  } else {
    out[row * out_stride + col] = from_float<Out>(to_float(*p));
  }
}

template <class In, class Out, int kVector>
__global__ void copy_rows_kernel(const In* from, std::int64_t from_stride, const std::int32_t* rows, std::int64_t count,
                                 std::int64_t cols, Out* out, std::int64_t out_stride) {
  let_next_begin();
  wait_for_previous();
  copy_vector<In, Out, kVector>(blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x, from, from_stride,
                                rows, count, cols, out, out_stride);
}

// copy_rows_kernel and, by the blocks behind its own, rope_table_kernel.
__global__ void embed_and_turn_kernel(const bf16* from, std::int64_t from_stride, const std::int32_t* rows,
                                      std::int64_t count, std::int64_t cols, float* out, std::int64_t out_stride,
                                      int copying, const RopeAnglesCuda angles, int pairs, float* cos, float* sin) {
  let_next_begin();
  wait_for_previous();
  const int block = static_cast<int>(blockIdx.x);
  const auto i = [](int b) { return b * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; };
  if (block < copying)
    copy_vector<bf16, float, 8>(i(block), from, from_stride, rows, count, cols, out, out_stride);
  else
    angle_of(i(block - copying), angles, count, pairs, cos, sin);
}

// --- argmax: kArgmaxParts blocks a row, then one that joins them
constexpr int kArgmaxParts = 128;
constexpr int kArgmaxThreads = 256;

struct Best {
  float value;
  std::int32_t index;  // -1: a value was not finite
};
__device__ Best better(Best a, Best b) {
  if (a.index < 0 || b.index < 0) return {0, -1};
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}
__device__ Best block_best(Best mine) {
  __shared__ float values[kArgmaxThreads];
  __shared__ std::int32_t indices[kArgmaxThreads];
  const int t = static_cast<int>(threadIdx.x);
  values[t] = mine.value, indices[t] = mine.index;
  for (int step = static_cast<int>(blockDim.x) / 2; step > 0; step /= 2) {
    __syncthreads();
    if (t < step) {
      const Best joined = better({values[t], indices[t]}, {values[t + step], indices[t + step]});
      values[t] = joined.value, indices[t] = joined.index;
    }
  }
  return {values[0], indices[0]};  // of use to thread 0 only
}

__global__ void argmax_part_kernel(const float* x, std::int64_t stride, int cols, float* values,
                                   std::int32_t* indices) {
  let_next_begin();
  wait_for_previous();
  const float* row = x + blockIdx.y * stride;
  const int part = (cols + kArgmaxParts - 1) / kArgmaxParts;
  const int begin = static_cast<int>(blockIdx.x) * part, end = min(cols, begin + part);
  Best best{-INFINITY, 0x7fffffff};
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += static_cast<int>(blockDim.x))
    best = better(best, {row[i], isfinite(row[i]) ? i : -1});
  best = block_best(best);
  if (threadIdx.x != 0) return;
  values[blockIdx.y * kArgmaxParts + blockIdx.x] = best.value;
  indices[blockIdx.y * kArgmaxParts + blockIdx.x] = best.index;
}

__global__ void argmax_join_kernel(const float* values, const std::int32_t* indices, std::int32_t* out) {
  let_next_begin();
  wait_for_previous();
  const int i = static_cast<int>(blockIdx.x) * kArgmaxParts + static_cast<int>(threadIdx.x);
  const Best best = block_best({values[i], indices[i]});
  if (threadIdx.x == 0) out[blockIdx.x] = best.index;
}

constexpr int kThreads = 256;
unsigned blocks_for(std::int64_t work) { return static_cast<unsigned>((work + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t layer_norm_cuda(CudaView x, const float* weight, const float* bias, float eps, CudaView out,
                            cudaStream_t s) {
  return norm<true>(x, weight, bias, eps, out, s);
}

cudaError_t rms_norm_cuda(CudaView x, const float* weight, float eps, CudaView out, cudaStream_t s) {
  return norm<false>(x, weight, nullptr, eps, out, s);
}

cudaError_t silu_mul_cuda(CudaView gate, CudaView up, CudaView out, cudaStream_t s) {
  if (gate.rows * gate.cols == 0) return cudaSuccess;
  if (!gate.f32 && vectorizable(gate) && vectorizable(up) && vectorizable(out)) {
    const std::int64_t vectors = gate.cols / 8;
    launch_early(silu_mul_kernel, blocks_for(gate.rows * vectors), kThreads, 0, s, at<bf16>(gate), at<bf16>(up),
                 at<bf16>(out), gate.rows, vectors, gate.stride, up.stride, out.stride);
  } else if (!gate.f32) {
    silu_mul_any_kernel<<<blocks_for(gate.rows * gate.cols), kThreads, 0, s>>>(
        at<bf16>(gate), at<bf16>(up), at<bf16>(out), gate.rows, gate.cols, gate.stride, up.stride, out.stride);
  } else {
    silu_mul_any_kernel<<<blocks_for(gate.rows * gate.cols), kThreads, 0, s>>>(
        at<float>(gate), at<float>(up), at<float>(out), gate.rows, gate.cols, gate.stride, up.stride, out.stride);
  }
  return cudaGetLastError();
}

cudaError_t activate_cuda(CudaView x, int activation, cudaStream_t s) {
  if (x.rows * x.cols == 0) return cudaSuccess;
  if (!x.f32 && vectorizable(x)) {
    const std::int64_t vectors = x.cols / 8;
    launch_early(activate_kernel, blocks_for(x.rows * vectors), kThreads, 0, s, at<bf16>(x), x.rows, vectors, x.stride,
                 activation);
  } else if (!x.f32) {
    activate_any_kernel<<<blocks_for(x.rows * x.cols), kThreads, 0, s>>>(at<bf16>(x), x.rows, x.cols, x.stride,
                                                                         activation);
  } else {
    activate_any_kernel<<<blocks_for(x.rows * x.cols), kThreads, 0, s>>>(at<float>(x), x.rows, x.cols, x.stride,
                                                                         activation);
  }
  return cudaGetLastError();
}

cudaError_t rope_cuda(CudaView x, std::int64_t heads, CudaView cos, CudaView sin, cudaStream_t s) {
  if (x.rows * x.cols == 0) return cudaSuccess;
  const int half = static_cast<int>(cos.cols), h = static_cast<int>(heads);
  const bool wide = half % 8 == 0 && vectorizable(x) && vectorizable(cos) && vectorizable(sin);
  const auto launch = [&]<class T>(T* p) {
    if (wide) {
      launch_early(rope_kernel<T, 8>, blocks_for(x.rows * heads * half / 8), kThreads, 0, s, p, x.rows, x.stride, h,
                   half, at<float>(cos), at<float>(sin));
    } else {
      launch_early(rope_kernel<T, 1>, blocks_for(x.rows * heads * half), kThreads, 0, s, p, x.rows, x.stride, h, half,
                   at<float>(cos), at<float>(sin));
    }
  };
  if (x.f32) {
    launch(at<float>(x));
  } else {
    launch(at<bf16>(x));
  }
  return cudaGetLastError();
}

cudaError_t rope_table_cuda(const RopeAnglesCuda& angles, CudaView cos, CudaView sin, cudaStream_t s) {
  if (cos.rows * cos.cols == 0) return cudaSuccess;
  return launch_early(rope_table_kernel, blocks_for(cos.rows * cos.cols), kThreads, 0, s, angles, cos.rows,
                      static_cast<int>(cos.cols), at<float>(cos), at<float>(sin));
}

cudaError_t copy_rows_cuda(CudaView from, const std::int32_t* rows, CudaView out, cudaStream_t s) {
  if (out.rows * out.cols == 0) return cudaSuccess;
  const bool wide = vectorizable(from) && vectorizable(out);
  return by_dtype(from, out, [&]<class In, class Out>(In* p, Out* to) {
    if (wide) {
      launch_early(copy_rows_kernel<In, Out, 8>, blocks_for(out.rows * out.cols / 8), kThreads, 0, s, p, from.stride,
                   rows, out.rows, out.cols, to, out.stride);
    } else {
      launch_early(copy_rows_kernel<In, Out, 1>, blocks_for(out.rows * out.cols), kThreads, 0, s, p, from.stride, rows,
                   out.rows, out.cols, to, out.stride);
    }
  });
}

cudaError_t embed_and_turn_cuda(CudaView table, const std::int32_t* ids, CudaView x, const RopeAnglesCuda& angles,
                                CudaView cos, CudaView sin, cudaStream_t s) {
  if (x.rows * x.cols * cos.cols == 0 || table.f32 || !x.f32 || !vectorizable(table) || !vectorizable(x)) {
    const cudaError_t error = copy_rows_cuda(table, ids, x, s);
    return error == cudaSuccess ? rope_table_cuda(angles, cos, sin, s) : error;
  }
  const unsigned copying = blocks_for(x.rows * x.cols / 8), turning = blocks_for(cos.rows * cos.cols);
  return launch_early(embed_and_turn_kernel, copying + turning, kThreads, 0, s, at<bf16>(table), table.stride, ids,
                      x.rows, x.cols, at<float>(x), x.stride, static_cast<int>(copying), angles,
                      static_cast<int>(cos.cols), at<float>(cos), at<float>(sin));
}

std::int64_t argmax_scratch(std::int64_t rows) { return rows * kArgmaxParts; }

cudaError_t argmax_cuda(CudaView x, float* scratch, std::int32_t* out, cudaStream_t s) {
  if (x.rows == 0) return cudaSuccess;
  auto* indices = reinterpret_cast<std::int32_t*>(scratch + argmax_scratch(x.rows));
  const dim3 grid(kArgmaxParts, static_cast<unsigned>(x.rows));
  const cudaError_t error = launch_early(argmax_part_kernel, grid, kArgmaxThreads, 0, s, at<float>(x), x.stride,
                                         static_cast<int>(x.cols), scratch, indices);
  if (error != cudaSuccess) return error;
  return launch_early(argmax_join_kernel, static_cast<unsigned>(x.rows), kArgmaxParts, 0, s, scratch, indices, out);
}

}  // namespace chiasm
