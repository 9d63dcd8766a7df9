// One card as the cuda Ops sees it: a stream, memory that is given and taken in the stream's order, the way of bytes
// there and back, and the first thing that went wrong.
//
// Everything runs on one stream, so that memory freed by one call may be used by the next without waiting, and buffers
// of several threads never meet. Bytes go through pinned pieces, filled by the thread pool. Thread contract: any
// thread.
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

  // What allocate() could still give: the card's free memory and what the stream's pool keeps of what was freed.
  std::uint64_t free_memory() const;

  // Keeps the first error, for status().
  void note(cudaError_t error, const char* what) const;
  void note(std::string what) const;
  // What was noted since the last call.
  Status status() const;
  // Waits for the stream; status() of all of it.
  Status wait() const;

  // Copies `bytes` small enough that nobody cares how, e.g. the ids of a step.
  void send_small(std::byte* to, const void* from, std::uint64_t bytes) const;
  // fill(piece, offset, count) writes bytes [offset, offset + count) of what goes to `to`; called from pool threads.
  using Fill = std::function<void(std::byte* piece, std::uint64_t offset, std::uint64_t count)>;
  void send(std::byte* to, std::uint64_t bytes, const Fill& fill) const;
  // Waits.
  Status receive(const std::byte* from, std::span<std::byte> to) const;

 private:
  CudaDevice(int index, ThreadPool& threads) : index_(index), threads_(threads) {}
  Status start();
  Status out_of_memory(std::uint64_t bytes) const;

  // Small enough that filling one and copying another run side by side for a single picture.
  static constexpr std::uint64_t kPiece = 2 << 20, kPieces = 4;
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
