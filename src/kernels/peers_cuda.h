// Sums over a few cards that reach each other's memory: one kernel a card, each writes to all. Used by
// collective_cuda.cpp only. Thread contract: pure functions; all cards make the same calls in the same order, each on
// one stream.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace chiasm {

inline constexpr int kMostPeers = 8;
inline constexpr int kPeerBlocks = 64;

// Where one card finds its own memory and that of the others. `turn` and `flags` are zero at first.
struct Peers {
  int own = 0, count = 0;
  std::int64_t room = 0;                  // floats that one card may send another in a call
  float* inbox[kMostPeers] = {};          // of each card, [2][count][room]: what the others send it
  std::uint32_t* flags[kMostPeers] = {};  // of each card, [count][kPeerBlocks]: the last call that came from whom
  std::uint32_t* turn = nullptr;          // of this card, [kPeerBlocks]: calls so far
};

// x [count] becomes the sum over all cards, in their order. count is a multiple of 4 and at most `room`, x aligned to
// 16 bytes.
cudaError_t peer_sum_cuda(const Peers& peers, float* x, std::int64_t count, cudaStream_t s);

// whole [rows, stride]: columns [begins[i], begins[i + 1]) of card i come to card 0. begins and stride are multiples of
// 4; no card sends more than `room`.
cudaError_t peer_gather_cuda(const Peers& peers, float* whole, std::int64_t rows, std::int64_t stride,
                             const std::int64_t* begins, cudaStream_t s);

}  // namespace chiasm
