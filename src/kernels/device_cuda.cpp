#include "kernels/device_cuda.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "kernels/stream_cpu.h"

namespace chiasm {
namespace {

std::string text_of(cudaError_t error) {
  return fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
}

}  // namespace

Result<std::unique_ptr<CudaDevice>> CudaDevice::open(int index, ThreadPool& threads) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess)
    return fail(Code::kUnavailable, "no CUDA card can be used: {}", text_of(error));
  if (index >= count)
    return fail(Code::kUnavailable, "no card cuda:{}: this machine has {} (from cuda:0)", index, count);
  std::unique_ptr<CudaDevice> out(new CudaDevice(index, threads));
  RETURN_IF_ERROR(out->start());
  return out;
}

Status CudaDevice::start() {
  const auto failed = [&](cudaError_t error) {
    return fail(Code::kUnavailable, "the card cuda:{} cannot be used: {}", index_, text_of(error));
  };
  if (const cudaError_t error = cudaSetDevice(index_); error != cudaSuccess) return failed(error);
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index_);
  cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, index_);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index_);
  if (major != 9)
    return fail(Code::kUnavailable, "the card cuda:{} is of compute capability {}.{}: this build has code for 9.0",
                index_, major, minor);
  if (const cudaError_t error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); error != cudaSuccess)
    return failed(error);
  // Memory that was freed stays here for the next step instead of going back to the driver at every wait.
  cudaMemPool_t pool = nullptr;
  std::uint64_t keep = UINT64_MAX;
  if (const cudaError_t error = cudaDeviceGetDefaultMemPool(&pool, index_); error != cudaSuccess) return failed(error);
  if (const cudaError_t error = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
      error != cudaSuccess)
    return failed(error);
  for (Piece& piece : pieces_) {
    void* data = nullptr;
    if (const cudaError_t error = cudaMallocHost(&data, kPiece); error != cudaSuccess) return failed(error);
    piece.data = static_cast<std::byte*>(data);
    if (const cudaError_t error = cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming); error != cudaSuccess)
      return failed(error);
  }
  return {};
}

// Errors of taking down have nobody to go to.
CudaDevice::~CudaDevice() {
  cudaSetDevice(index_);
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (const Piece& piece : pieces_) {
    if (piece.data != nullptr) cudaFreeHost(piece.data);
    if (piece.done != nullptr) cudaEventDestroy(piece.done);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

cudaStream_t CudaDevice::stream() const {
  note(cudaSetDevice(index_), "cudaSetDevice");
  return stream_;
}

std::uint64_t CudaDevice::free_memory() const {
  std::size_t free = 0, total = 0;
  const cudaStream_t on = stream();
  note(cudaStreamSynchronize(on), "a kernel");  // what was freed in its order is free
  note(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  cudaMemPool_t pool = nullptr;
  std::uint64_t reserved = 0, used = 0;
  note(cudaDeviceGetDefaultMemPool(&pool, index_), "cudaDeviceGetDefaultMemPool");
  if (pool == nullptr) return free;
  note(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute");
  note(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
  return free + (reserved > used ? reserved - used : 0);
}

Status CudaDevice::out_of_memory(std::uint64_t bytes) const {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  cudaGetLastError();  // this refusal is ours to report, not the next launch's
  return fail(Code::kResourceExhausted, "cuda:{} has no memory for {} bytes ({} of {} are free)", index_, bytes, free,
              total);
}

Result<std::byte*> CudaDevice::allocate(std::uint64_t bytes) const {
  void* data = nullptr;
  if (bytes == 0) return nullptr;
  const cudaStream_t on = stream();
  if (bytes > (std::uint64_t{1} << 47)) return tl::unexpected(out_of_memory(bytes).error());
  const cudaError_t error = cudaMallocAsync(&data, bytes, on);
  if (error == cudaErrorMemoryAllocation) return tl::unexpected(out_of_memory(bytes).error());
  if (error != cudaSuccess) return fail(Code::kInternal, "cuda:{}: cudaMallocAsync: {}", index_, text_of(error));
  return static_cast<std::byte*>(data);
}

void CudaDevice::free(std::byte* data) const {
  if (data != nullptr) note(cudaFreeAsync(data, stream()), "cudaFreeAsync");
}

Result<Buffer> CudaDevice::allocate(std::int64_t rows, std::int64_t cols, DType dtype) const {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  const auto bytes = byte_count({rows, cols}, dtype);
  if (!bytes) return fail(Code::kResourceExhausted, "no memory for a {} x {} matrix", rows, cols);
  ASSIGN_OR_RETURN(std::byte* const data, allocate(*bytes));
  const BufferFree free{[](void* context, std::byte* p) { static_cast<const CudaDevice*>(context)->free(p); },
                        const_cast<CudaDevice*>(this)};
  return Buffer(data, free, rows, cols, dtype);
}

Result<CudaDevice::HostInts> CudaDevice::host_ints(std::int64_t count) const {
  void* data = nullptr;
  static_cast<void>(stream());
  if (const cudaError_t error = cudaMallocHost(&data, static_cast<std::size_t>(count) * sizeof(std::int32_t));
      error != cudaSuccess)
    return fail(Code::kResourceExhausted, "cuda:{}: no pinned memory of the host for {} integers: {}", index_, count,
                text_of(error));
  return HostInts(static_cast<std::int32_t*>(data));
}

void CudaDevice::note(cudaError_t error, const char* what) const {
  if (error == cudaSuccess) return;
  const std::lock_guard lock(error_mutex_);
  if (error_.empty()) error_ = fmt::format("cuda:{}: {}: {}", index_, what, text_of(error)), code_ = error;
}

void CudaDevice::note(std::string what) const {
  const std::lock_guard lock(error_mutex_);
  if (error_.empty()) error_ = fmt::format("cuda:{}: {}", index_, what), code_ = cudaErrorUnknown;
}

Status CudaDevice::status() const {
  const std::lock_guard lock(error_mutex_);
  if (error_.empty()) return {};
  const Code code = code_ == cudaErrorMemoryAllocation ? Code::kResourceExhausted : Code::kInternal;
  code_ = cudaSuccess;
  return fail(code, "{}", std::exchange(error_, {}));
}

Status CudaDevice::wait() const {
  note(cudaStreamSynchronize(stream()), "a kernel");
  return status();
}

void CudaDevice::send_small(std::byte* to, const void* from, std::uint64_t bytes) const {
  // The driver takes so many from pageable memory at once; for more it waits until all before them is done.
  constexpr std::uint64_t kAtOnce = 64 << 10;
  if (bytes > kAtOnce) {
    const auto* const values = static_cast<const std::byte*>(from);
    return send(to, bytes, [&](std::byte* part, std::uint64_t offset, std::uint64_t count) {
      copy_past_caches(values + offset, count, part);
    });
  }
  if (bytes > 0) note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream()), "a copy to the card");
}

// A power of two, so that a piece's turn comes to the same lane again.
std::uint64_t CudaDevice::lanes_for(std::uint64_t pieces) const {
  return std::bit_floor(std::min({kLanes, pieces, static_cast<std::uint64_t>(threads_.size())}));
}

void CudaDevice::send(std::byte* to, std::uint64_t bytes, const Fill& fill) const {
  const std::lock_guard lock(pieces_mutex_);
  const std::uint64_t size = std::clamp(bytes / kPieces, kLeastPiece, kPiece) / kAligned * kAligned;
  const std::uint64_t pieces = (bytes + size - 1) / size, lanes = lanes_for(pieces);
  std::atomic<std::uint64_t> next = 0;
  const auto send_pieces = [&](std::uint64_t lane) {
    const cudaStream_t on = stream();
    std::uint64_t turn = 0;
    for (std::uint64_t i = next++; i < pieces; i = next++) {
      const Piece& piece = pieces_[lane * kTurns + turn++ % kTurns];
      const std::uint64_t offset = i * size, count = std::min(size, bytes - offset);
      note(cudaEventSynchronize(piece.done), "a copy to the card");
      fill(piece.data, offset, count);
      note(cudaMemcpyAsync(to + offset, piece.data, count, cudaMemcpyHostToDevice, on), "a copy to the card");
      note(cudaEventRecord(piece.done, on), "cudaEventRecord");
    }
  };
  threads_.parallel_for(static_cast<std::int64_t>(lanes),
                        [&](std::int64_t lane, int) { send_pieces(static_cast<std::uint64_t>(lane)); });
}

Status CudaDevice::receive(const std::byte* from, std::span<std::byte> to) const {
  const cudaStream_t on = stream();
  if (to.empty()) return wait();
  const std::lock_guard lock(pieces_mutex_);
  const std::uint64_t size = std::clamp<std::uint64_t>(to.size() / kPieces, kLeastPiece, kPiece);
  const std::uint64_t pieces = (to.size() + size - 1) / size, lanes = lanes_for(pieces);
  const auto begin = [&](std::uint64_t i) {
    const Piece& piece = pieces_[i % kPieces];
    const std::uint64_t count = std::min<std::uint64_t>(size, to.size() - i * size);
    note(cudaMemcpyAsync(piece.data, from + i * size, count, cudaMemcpyDeviceToHost, on), "a copy to the host");
    note(cudaEventRecord(piece.done, on), "cudaEventRecord");
  };
  for (const Piece& piece : pieces_) note(cudaEventSynchronize(piece.done), "a copy to the card");
  for (std::uint64_t i = 0; i < std::min(pieces, kPieces); ++i) begin(i);
  // One thread waits for what is still to be computed, not all.
  note(cudaEventSynchronize(pieces_[0].done), "a kernel");
  const auto take_pieces = [&](std::uint64_t lane) {
    note(cudaSetDevice(index_), "cudaSetDevice");
    for (std::uint64_t i = lane; i < pieces; i += lanes) {
      const Piece& piece = pieces_[i % kPieces];
      note(cudaEventSynchronize(piece.done), "a copy to the host");
      std::memcpy(to.data() + i * size, piece.data, std::min<std::uint64_t>(size, to.size() - i * size));
      if (i + kPieces < pieces) begin(i + kPieces);
    }
  };
  threads_.parallel_for(static_cast<std::int64_t>(lanes),
                        [&](std::int64_t lane, int) { take_pieces(static_cast<std::uint64_t>(lane)); });
  return status();
}

}  // namespace chiasm
