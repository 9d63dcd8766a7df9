// Every card writes what it has into all others' inboxes, says so, waits until they have said so, and reads its own.
// Two halves of the inbox take turns: who writes into one again has heard from everybody of the call between, and so
// they are done reading it. Block b talks to the others' blocks b only.
#include "kernels/cuda_common.cuh"
#include "kernels/peers_cuda.h"

namespace chiasm {
namespace {

constexpr int kThreads = 512;
constexpr long long kPatience = 60'000'000'000;  // cycles, about half a minute: a card that never comes is an error

__device__ inline void tell(std::uint32_t* flag, std::uint32_t turn) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(turn) : "memory");
}
__device__ inline std::uint32_t heard(const std::uint32_t* flag) {
  std::uint32_t out;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(out) : "l"(flag) : "memory");
  return out;
}

__device__ inline float4* inbox_of(const Peers& peers, int to, int from, std::uint32_t turn) {
  return reinterpret_cast<float4*>(peers.inbox[to] + ((turn & 1) * peers.count + from) * peers.room);
}

// What this block wrote is there for the others, and theirs for it.
__device__ inline void meet(const Peers& peers, std::uint32_t turn) {
  __syncthreads();
  const int other = static_cast<int>(threadIdx.x);
  if (other < peers.count && other != peers.own) {
    __threadfence_system();
    tell(peers.flags[other] + peers.own * kPeerBlocks + blockIdx.x, turn);
    const std::uint32_t* flag = peers.flags[peers.own] + other * kPeerBlocks + blockIdx.x;
    const long long begin = clock64();
    while (static_cast<std::int32_t>(heard(flag) - turn) < 0)
      if (clock64() - begin > kPatience) __trap();
  }
  __syncthreads();
}

// This block's part of `count`: [first, last).
__device__ inline std::int64_t first_of(std::int64_t count, unsigned block) {
  const std::int64_t part = (count + kPeerBlocks - 1) / kPeerBlocks;
  const std::int64_t wide = (part + kThreads - 1) / kThreads * kThreads;
  return min(count, static_cast<std::int64_t>(block) * wide);
}

__device__ inline std::uint32_t next_turn(const Peers& peers) { return peers.turn[blockIdx.x] + 1; }

__device__ inline void end_turn(const Peers& peers, std::uint32_t turn) {
  if (threadIdx.x == 0) peers.turn[blockIdx.x] = turn;
}

__global__ void __launch_bounds__(kThreads) sum_kernel(Peers peers, float4* x, std::int64_t count) {
  const std::uint32_t turn = next_turn(peers);
  const std::int64_t first = first_of(count, blockIdx.x), last = first_of(count, blockIdx.x + 1);
  if (first < last) {
    for (std::int64_t i = first + threadIdx.x; i < last; i += kThreads) {
      const float4 value = x[i];
      for (int to = 0; to < peers.count; ++to)
        if (to != peers.own) inbox_of(peers, to, peers.own, turn)[i] = value;
    }
    meet(peers, turn);
    for (std::int64_t i = first + threadIdx.x; i < last; i += kThreads) {
      const float4 own = x[i];
      float4 sum{0, 0, 0, 0};
      for (int from = 0; from < peers.count; ++from) {
        const float4 value = from == peers.own ? own : __ldcg(inbox_of(peers, peers.own, from, turn) + i);
        sum = from == 0 ? value : float4{sum.x + value.x, sum.y + value.y, sum.z + value.z, sum.w + value.w};
      }
      x[i] = sum;
    }
  }
  end_turn(peers, turn);
}

struct Begins {
  std::int64_t at[kMostPeers + 1];  // in float4
};

__global__ void __launch_bounds__(kThreads)
    gather_kernel(Peers peers, float4* whole, std::int64_t rows, std::int64_t stride, Begins begins) {
  const std::uint32_t turn = next_turn(peers);
  const auto columns = [&](int card) { return begins.at[card + 1] - begins.at[card]; };
  if (peers.own != 0) {
    const std::int64_t width = columns(peers.own), count = rows * width, last = first_of(count, blockIdx.x + 1);
    for (std::int64_t i = first_of(count, blockIdx.x) + threadIdx.x; i < last; i += kThreads)
      inbox_of(peers, 0, peers.own, turn)[i] = whole[i / width * stride + begins.at[peers.own] + i % width];
  }
  meet(peers, turn);
  for (int from = 1; peers.own == 0 && from < peers.count; ++from) {
    const std::int64_t width = columns(from), count = rows * width, last = first_of(count, blockIdx.x + 1);
    for (std::int64_t i = first_of(count, blockIdx.x) + threadIdx.x; i < last; i += kThreads)
      whole[i / width * stride + begins.at[from] + i % width] = __ldcg(inbox_of(peers, 0, from, turn) + i);
  }
  end_turn(peers, turn);
}

}  // namespace

cudaError_t peer_sum_cuda(const Peers& peers, float* x, std::int64_t count, cudaStream_t s) {
  sum_kernel<<<kPeerBlocks, kThreads, 0, s>>>(peers, reinterpret_cast<float4*>(x), count / 4);
  return cudaGetLastError();
}

cudaError_t peer_gather_cuda(const Peers& peers, float* whole, std::int64_t rows, std::int64_t stride,
                             const std::int64_t* begins, cudaStream_t s) {
  Begins in_vectors{};
  for (int i = 0; i <= peers.count; ++i) in_vectors.at[i] = begins[i] / 4;
  gather_kernel<<<kPeerBlocks, kThreads, 0, s>>>(peers, reinterpret_cast<float4*>(whole), rows, stride / 4, in_vectors);
  return cudaGetLastError();
}

}  // namespace chiasm
