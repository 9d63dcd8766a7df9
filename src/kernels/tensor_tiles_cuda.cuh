// Tiles that the copy engine brings by tensor maps, and products of two such tiles in shared memory. Included by
// *_cuda.cu only. PTX ISA 9.0, "Tensor copies" and "Asynchronous Warpgroup Level Matrix Instructions".
//
// A tile is rows of 128 bytes (64 BF16 or 128 e4m3 values), eight rows every 1024 bytes, whose 16-byte pieces stand in
// the ISA's 128-byte swizzle: piece p of row r lies at p ^ r % 8.
#pragma once

#include <cstdint>

#include <cuda.h>

#include "kernels/wgmma_cuda.cuh"

namespace chiasm {

constexpr int kTileRowBytes = 128;

// Of a tile at `address` (a multiple of 1024), from the 32 bytes `step` of its rows on.
__device__ inline std::uint64_t tile_descriptor(std::uint32_t address, int step) {
  return std::uint64_t{1} << 62 | std::uint64_t{1024 >> 4} << 32 |
         ((address & 0x3ffff) >> 4) + static_cast<std::uint64_t>(2 * step);
}

// wgmma<kFp8>(d, a, b, add): d [64, N] = or += a b^T, both in tiles, their next 32 bytes: a [64, 16] and b [N, 16] of
// BF16, or a [64, 32] and b [N, 32] of e4m3. d has N / 2 registers.
constexpr int kWgmmaBytes = 32;
template <bool kFp8, int kRegisters>
__device__ inline void wgmma(float (&d)[kRegisters], std::uint64_t a, std::uint64_t b, int add);
#define CHIASM_LIST_80                                                                               \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"  \
  "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49," \
  "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73," \
  "%74,%75,%76,%77,%78,%79}"
#define CHIASM_REGISTERS_80(d) CHIASM_REGISTERS_64(d), CHIASM_REGISTERS_8(d, 64), CHIASM_REGISTERS_8(d, 72)
#define CHIASM_LIST_120                                                                                \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"    \
  "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,"   \
  "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,"   \
  "%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,"   \
  "%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117," \
  "%118,%119}"
#define CHIASM_REGISTERS_120(d)                                                                            \
  CHIASM_REGISTERS_80(d), CHIASM_REGISTERS_8(d, 80), CHIASM_REGISTERS_8(d, 88), CHIASM_REGISTERS_8(d, 96), \
      CHIASM_REGISTERS_8(d, 104), CHIASM_REGISTERS_8(d, 112)
// Of N columns in `count` registers; operands a, b and add come behind them, so they are the next three numbers.
#define CHIASM_WGMMA(fp8, depth_and_types, transposed, count, columns, a_at, b_at, add_at)            \
  template <>                                                                                         \
  __device__ inline void wgmma<fp8>(float(&d)[count], std::uint64_t a, std::uint64_t b, int add) {    \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #add_at                                     \
                 ", 0;\n"                                                                             \
                 "wgmma.mma_async.sync.aligned.m64n" #columns depth_and_types " " CHIASM_LIST_##count \
                 ", %" #a_at ", %" #b_at ", add, 1, 1" transposed ";\n}\n"                            \
                 : CHIASM_REGISTERS_##count(d)                                                        \
                 : "l"(a), "l"(b), "r"(add));                                                         \
  }
#define CHIASM_WGMMA_OF_TILES(count, columns, a_at, b_at, add_at)                        \
  CHIASM_WGMMA(false, "k16.f32.bf16.bf16", ", 0, 0", count, columns, a_at, b_at, add_at) \
  CHIASM_WGMMA(true, "k32.f32.e4m3.e4m3", "", count, columns, a_at, b_at, add_at)
CHIASM_WGMMA_OF_TILES(40, 80, 40, 41, 42)
CHIASM_WGMMA_OF_TILES(80, 160, 80, 81, 82)
CHIASM_WGMMA_OF_TILES(120, 240, 120, 121, 122)
#undef CHIASM_WGMMA_OF_TILES
#undef CHIASM_WGMMA

// A box of a matrix, from column `column` and row `row` on, to the same place in the shared memory of every block of
// the cluster that `blocks` names, where it completes on the barrier at the same place.
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap& map, int column, int row, std::uint32_t barrier,
                                std::uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
      "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}
// To this block only; a box of a matrix, or slabs of it from the slab `slab` on.
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap& map, int column, int row, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
      "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
__device__ inline void copy_slabs(std::uint32_t to, const CUtensorMap& map, int slab, int row, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];\n" ::"r"(to),
      "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(0), "r"(row), "r"(slab), "r"(barrier)
      : "memory");
}
// From shared memory to a box of a matrix, or added to what is there; shared memory may be written again after
// bulk_wait_read(), by the thread that asked.
__device__ inline void store_box(const CUtensorMap& map, int column, int row, std::uint32_t from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(
                   reinterpret_cast<std::uint64_t>(&map)),
               "r"(column), "r"(row), "r"(from)
               : "memory");
}
__device__ inline void add_box(const CUtensorMap& map, int column, int row, std::uint32_t from) {
  asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(
                   reinterpret_cast<std::uint64_t>(&map)),
               "r"(column), "r"(row), "r"(from)
               : "memory");
}
__device__ inline void bulk_commit() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
template <int kStillOpen>
__device__ inline void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(kStillOpen) : "memory");
}
// What this thread wrote to shared memory is there for the copy engine.
__device__ inline void fence_for_copies() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }
__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(reinterpret_cast<std::uint64_t>(&map)) : "memory");
}

// --- blocks of a cluster
__device__ inline int rank_in_cluster() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return static_cast<int>(rank);
}
// Every thread of every block of the cluster has come. Orders barriers behind fence_barrier_init(), nothing else.
__device__ inline void cluster_meet() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}
// At the barrier that stands at the same place in a block of the cluster. It orders what this thread's block sees,
// which is enough for tiles that have been read: a release to the cluster would wait for all of the thread's stores.
__device__ inline void barrier_arrive_at(std::uint32_t barrier, int block) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
}

}  // namespace chiasm
