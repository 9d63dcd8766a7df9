// One card as the cuda Ops sees it: a stream, memory that is given and taken in the stream's order, the way of bytes
// there and back, and the first thing that went wrong.
//
// Everything runs on one stream, so that memory freed by one call may be used by the next without waiting, and buffers
// of several threads never meet. Bytes go through pinned pieces, which threads of the pool fill and send, or empty,
// side by side. Thread contract: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include <cuda_runtime_api.h>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/buffer.h"

namespace chiasm {

class CudaDevice {
 public:
  // kUnavailable naming what is missing: a driver, a card of this number, one that this build has code for.
  static Result<std::unique_ptr<CudaDevice>> open(int index, ThreadPool& threads);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  int index() const { return index_; }
  int multiprocessors() const { return multiprocessors_; }
  // The stream, with the card made current for this thread: every call of the runtime begins here.
  cudaStream_t stream() const;

  // kResourceExhausted, naming the size and what is free.
  Result<std::byte*> allocate(std::uint64_t bytes) const;
  void free(std::byte* data) const;
  Result<Buffer> allocate(std::int64_t rows, std::int64_t cols, DType dtype) const;
  // Memory of the host that kernels write to; for what lasts.
  struct HostFree {
    void operator()(std::int32_t* data) const { cudaFreeHost(data); }
  };
  using HostInts = std::unique_ptr<std::int32_t[], HostFree>;
  Result<HostInts> host_ints(std::int64_t count) const;

  // What allocate() could still give: the card's free memory and what the stream's pool keeps of what was freed.
  std::uint64_t free_memory() const;

  // Keeps the first error, for status().
  void note(cudaError_t error, const char* what) const;
  void note(std::string what) const;
  // What was noted since the last call.
  Status status() const;
  // Waits for the stream; status() of all of it.
  Status wait() const;

  // Lists, e.g. the ids of a step.
  void send_small(std::byte* to, const void* from, std::uint64_t bytes) const;
  // fill(piece, offset, count) writes bytes [offset, offset + count) of what goes to `to`, best past the caches
  // (stream_cpu.h): from there the card would get them at half the rate. Called from pool threads; pieces are aligned,
  // and multiples of kAligned but for the last.
  using Fill = std::function<void(std::byte* piece, std::uint64_t offset, std::uint64_t count)>;
  static constexpr std::uint64_t kAligned = 4 << 10;
  void send(std::byte* to, std::uint64_t bytes, const Fill& fill) const;
  // Waits.
  Status receive(const std::byte* from, std::span<std::byte> to) const;

 private:
  CudaDevice(int index, ThreadPool& threads) : index_(index), threads_(threads) {}
  Status start();
  Status out_of_memory(std::uint64_t bytes) const;

  // Each copy costs the driver 5 us, one after the other: smaller pieces would take longer than their bytes.
  static constexpr std::uint64_t kPiece = 512 << 10, kLeastPiece = 256 << 10;
  // Threads that fill or empty pieces, and how many pieces each has in turn.
  static constexpr std::uint64_t kLanes = 16, kTurns = 2, kPieces = kLanes * kTurns;
  std::uint64_t lanes_for(std::uint64_t pieces) const;
  struct Piece {
    std::byte* data = nullptr;
    cudaEvent_t done = nullptr;
  };

  const int index_;
  int multiprocessors_ = 0;
  ThreadPool& threads_;
  cudaStream_t stream_ = nullptr;
  mutable std::mutex pieces_mutex_;
  Piece pieces_[kPieces];
  mutable std::mutex error_mutex_;
  mutable std::string error_;
  mutable cudaError_t code_ = cudaSuccess;
};

}  // namespace chiasm
