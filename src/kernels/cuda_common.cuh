// What the device code shares: checked launches, bf16 loads and stores, reductions over a warp and a block.
// Included by *_cuda.cu only.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace chiasm {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// --- kernels that begin before the one in front of them in the stream has ended (programmatic dependent launch): what
// they do until wait_for_previous() may touch nothing that a kernel writes, and every block calls it. So a kernel's end
// still means that all before it have ended.
__device__ inline void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory"); }
__device__ inline void wait_for_previous() { asm volatile("griddepcontrol.wait;\n" ::: "memory"); }

// Launches such a kernel, in clusters of so many blocks beside each other.
template <class... Parameters, class... Arguments>
cudaError_t launch_early_in_clusters(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, unsigned threads,
                                     std::size_t shared, cudaStream_t s, Arguments... arguments) {
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster, attributes[1].val.clusterDim.y = 1, attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared;
  config.stream = s;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}
template <class... Parameters, class... Arguments>
cudaError_t launch_early(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared, cudaStream_t s,
                         Arguments... arguments) {
  return launch_early_in_clusters(kernel, 1, grid, threads, shared, s, arguments...);
}

// From memory to L2, without waiting for it; 16-byte aligned, a multiple of 16 bytes.
__device__ inline void prefetch_to_l2(const void* p, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(p), "r"(bytes) : "memory");
}

__device__ inline float warp_sum(float x) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffU, x, offset);
  return x;
}

// Of all threads of the block, in an order that depends on its size only; `scratch` holds a float a warp.
__device__ inline float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return x;
  __syncthreads();  // scratch may still be read from the call before
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < warps; ++i) total += scratch[i];
  return total;
}

// 8 values at once where `data` and the row length allow it (see vectorizable()), else one at a time.
template <class T>
struct Vec8 {
  float v[8];
};
__device__ inline void load8(const float* p, float* v) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ inline void load8(const bf16* p, float* v) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __uint_as_float(words[i] << 16);
    v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
  }
}
__device__ inline void store8(float* p, const float* v) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ inline std::uint32_t pack2(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline void store8(bf16* p, const float* v) {
  *reinterpret_cast<uint4*>(p) = make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}

// rms_norm of a row of `cols` F32 values (whole float4s) to BF16 by a block; `squares` has room for cols / 4 floats.
// Sums are taken in one order, whatever the number of threads: a lane's float4s first, then the 32 lanes. The block has
// to meet before it reads what others wrote to `out`, and before `squares` is used again.
__device__ inline void rms_norm_row(const float* x, const float* weight, int cols, float eps, float* squares,
                                    bf16* out) {
  constexpr int kKept = 2;  // float4s of a thread that stay in registers
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), vectors = cols / 4;
  float4 kept[kKept], kept_weight[kKept];
#pragma unroll
  for (int item = 0; item < kKept; ++item) {
    const int i = thread + item * threads;
    if (i >= vectors) continue;
    kept[item] = reinterpret_cast<const float4*>(x)[i];
    kept_weight[item] = reinterpret_cast<const float4*>(weight)[i];
  }
  const auto square = [&](int i, const float4& v) { squares[i] = v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w); };
#pragma unroll
  for (int item = 0; item < kKept; ++item)
    if (const int i = thread + item * threads; i < vectors) square(i, kept[item]);
  for (int i = thread + kKept * threads; i < vectors; i += threads) square(i, reinterpret_cast<const float4*>(x)[i]);
  __syncthreads();
  float sum = 0;
#pragma unroll 4
  for (int i = thread % kWarp; i < vectors; i += kWarp) sum += squares[i];
  const float inverse = rsqrtf(warp_sum(sum) / static_cast<float>(cols) + eps);
  const auto store = [&](int i, const float4& v, const float4& w) {
    reinterpret_cast<uint2*>(out)[i] =
        make_uint2(pack2(v.x * inverse * w.x, v.y * inverse * w.y), pack2(v.z * inverse * w.z, v.w * inverse * w.w));
  };
#pragma unroll
  for (int item = 0; item < kKept; ++item)
    if (const int i = thread + item * threads; i < vectors) store(i, kept[item], kept_weight[item]);
  for (int i = thread + kKept * threads; i < vectors; i += threads)
    store(i, reinterpret_cast<const float4*>(x)[i], reinterpret_cast<const float4*>(weight)[i]);
}

__device__ inline float silu(float x) { return x / (1.0F + __expf(-x)); }

// A pair of a head's halves turned by an angle. One rounding after the other, so that every kernel gives the same bits.
__device__ inline void turn(float& a, float& b, float cos, float sin) {
  const float u = a, w = b;
  a = __fmaf_rn(u, cos, -__fmul_rn(w, sin));
  b = __fmaf_rn(w, cos, __fmul_rn(u, sin));
}

// 8 values of each half of a head.
__device__ inline void turn8(uint4& first, uint4& second, const float* cos, const float* sin) {
  float a[8], b[8], c[8], s[8];
  load8(reinterpret_cast<const bf16*>(&first), a), load8(reinterpret_cast<const bf16*>(&second), b);
  load8(cos, c), load8(sin, s);
#pragma unroll
  for (int i = 0; i < 8; ++i) turn(a[i], b[i], c[i], s[i]);
  store8(reinterpret_cast<bf16*>(&first), a), store8(reinterpret_cast<bf16*>(&second), b);
}

__device__ inline float activate(float x, int activation) {
  if (activation == 1) return x / (1.0F + __expf(-1.702F * x));              // Activation::kQuickGelu
  if (activation == 2) return 0.5F * x * (1.0F + erff(x * 0.70710678118F));  // Activation::kGelu
  return x;
}

// --- tensor cores: mma.sync m16n8k16, bf16 in, f32 sums (PTX ISA, "Matrix Fragments for mma.m16n8k16")
__device__ inline void mma_16x8x16(float* d, const std::uint32_t* a, const std::uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four 8 x 8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void ldmatrix_x4(std::uint32_t* r, const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void ldmatrix_x4_trans(std::uint32_t* r, const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
// 16 bytes from device to shared memory without a register between; zeros where `valid` is false.
__device__ inline void copy_async_16(void* to, const void* from, bool valid) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(bytes));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n"); }
template <int kStillOpen>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kStillOpen));
}
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace chiasm
