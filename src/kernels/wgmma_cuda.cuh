// What compute capability 9.0 adds, wrapped: products of a warpgroup (wgmma), barriers in shared memory, registers that
// move between warps. Included by *_cuda.cu only. PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix Instructions".
//
// Operands of wgmma stand in shared memory as slabs: 16 columns (32 bytes a row) of all rows, one slab behind the
// other. The two 16-byte halves of a row are swapped in every other group of four rows (the ISA's 32-byte swizzle), so
// that no eight halves that are read or written together share a bank. One layout serves whichever side is summed over.
#pragma once

#include <cstdint>

#include "kernels/cuda_common.cuh"

namespace chiasm {

constexpr int kWarpgroup = 4 * kWarp;
constexpr int kSlabColumns = 16, kSlabRow = 32;  // bytes a row

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// Of slabs of `slab_bytes` each, from `address` (a multiple of 256): 32-byte swizzle, 8 rows every 256 bytes. Where the
// rows are summed over, further columns stand a slab away; where columns are, a product ends with the slab.
__device__ inline std::uint64_t slab_descriptor(std::uint32_t address, std::uint32_t slab_bytes) {
  return std::uint64_t{3} << 62 | std::uint64_t{256 >> 4} << 32 | static_cast<std::uint64_t>(slab_bytes >> 4) << 16 |
         (address & 0x3ffff) >> 4;
}
__device__ inline std::uint64_t advanced(std::uint64_t descriptor, int bytes) { return descriptor + (bytes >> 4); }

// Registers of products under way may not be touched between the fence and the wait.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kStillOpen>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kStillOpen) : "memory");
}
// What reads or writes r stays on its side of this.
template <int kCount>
__device__ inline void keep_in_place(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i])::"memory");
}

// wgmma(d, a, b, add): d [64, N] = or += a [64, 16] b^T, b [N, 16] in shared memory, its columns summed over.
// wgmma(d, a, b): d [64, N] += a b, b [16, N] in shared memory, its rows summed over. d has N / 2 registers, and a's
// are four, in the places of mma_16x8x16: warp i of the group has rows 16 i to 16 i + 15.
#define CHIASM_REGISTERS_8(d, i)                                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define CHIASM_LIST_40                                                                                  \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
  "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39}"
#define CHIASM_REGISTERS_40(d)                                                                              \
  CHIASM_REGISTERS_8(d, 0), CHIASM_REGISTERS_8(d, 8), CHIASM_REGISTERS_8(d, 16), CHIASM_REGISTERS_8(d, 24), \
      CHIASM_REGISTERS_8(d, 32)
#define CHIASM_LIST_64                                                                                   \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"  \
  "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
  "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define CHIASM_REGISTERS_64(d)                                                                              \
  CHIASM_REGISTERS_8(d, 0), CHIASM_REGISTERS_8(d, 8), CHIASM_REGISTERS_8(d, 16), CHIASM_REGISTERS_8(d, 24), \
      CHIASM_REGISTERS_8(d, 32), CHIASM_REGISTERS_8(d, 40), CHIASM_REGISTERS_8(d, 48), CHIASM_REGISTERS_8(d, 56)

__device__ inline void wgmma(float (&d)[40], const std::uint32_t* a, std::uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 " CHIASM_LIST_40
               ", {%40,%41,%42,%43}, %44, 1, 1, 1, 1;\n"
               : CHIASM_REGISTERS_40(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ inline void wgmma(float (&d)[64], const std::uint32_t* a, std::uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " CHIASM_LIST_64
               ", {%64,%65,%66,%67}, %68, 1, 1, 1, 1;\n"
               : CHIASM_REGISTERS_64(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ inline void wgmma(float (&d)[64], const std::uint32_t* a, std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " CHIASM_LIST_64
      ", {%64,%65,%66,%67}, %68, add, 1, 1, 0;\n}\n"
      : CHIASM_REGISTERS_64(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// --- barriers in shared memory; `parity` of a barrier's first phase is 0
__device__ inline void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}
// What barrier_init wrote is there for the copy engine.
__device__ inline void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_wait(std::uint32_t barrier, int parity) {
  int done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.b32 %0, 1, 0, done;\n}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}
// Arrives, and the phase ends only when `bytes` of copies that name the barrier are there too.
__device__ inline void barrier_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
// From device to shared memory by the copy engine, 16-byte aligned, a multiple of 16 bytes.
__device__ inline void copy_bulk(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
// Named barriers of `threads` threads: those that wait and those that only arrive.
__device__ inline void turn_wait(int id, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void turn_give(int id, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

template <int kCount>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}
template <int kCount>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

}  // namespace chiasm
