#include "kernels/collective_cuda.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "kernels/nccl_cuda.h"
#include "kernels/peers_cuda.h"

namespace chiasm {
namespace {

constexpr std::int64_t kRoom = std::int64_t{1} << 23;  // floats that go from card to card without NCCL
// With more than two cards everybody sends everything to everybody: worth it for the steps of decoding only.
constexpr std::int64_t kRoomOfMany = std::int64_t{1} << 18;

class CudaCollective final : public Collective {
 public:
  explicit CudaCollective(std::vector<const CudaDevice*> devices) : devices_(std::move(devices)) {}
  ~CudaCollective() override {
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      devices_[i]->stream();  // makes the card current
      if (i < comms_.size()) nccl_.comm_destroy(comms_[i]);
      if (i < peers_.size()) cudaFree(peers_[i].inbox[i]);
      if (i < peers_.size()) cudaFree(peers_[i].turn);
    }
  }

  Status start() {
    RETURN_IF_ERROR(nccl_.open());
    std::vector<int> indices;
    for (const CudaDevice* device : devices_) indices.push_back(device->index());
    std::vector<NcclComm*> comms(devices_.size(), nullptr);
    if (const int result = nccl_.comm_init_all(comms.data(), static_cast<int>(comms.size()), indices.data());
        result != 0)
      return fail(Code::kUnavailable, "NCCL does not connect the cards: {} ({})", nccl_.error_text(result),
                  nccl_.last_error(nullptr));
    comms_ = std::move(comms);
    RETURN_IF_ERROR(warm_up());
    return meet_peers();
  }

  void sum(std::span<const View> views) const override {
    const View& first = views[0];
    CHECK(first.dtype == DType::kF32 && (first.rows <= 1 || first.stride == first.cols));
    const std::int64_t count = first.rows * first.cols;
    const std::lock_guard lock(mutex_);
    if (!peers_.empty() && count % 4 == 0 && count <= (peers_.size() == 2 ? kRoom : kRoomOfMany)) {
      for (std::size_t i = 0; i < views.size(); ++i)
        devices_[i]->note(peer_sum_cuda(peers_[i], values_of(views[i]), count, devices_[i]->stream()), "a sum");
      return;
    }
    by_nccl([&](std::size_t i) {
      return nccl_.all_reduce(views[i].data, views[i].data, static_cast<std::size_t>(count), Nccl::kFloat32, Nccl::kSum,
                              comms_[i], devices_[i]->stream());
    });
  }

  void gather(std::span<const View> views, std::span<const std::int64_t> begins) const override {
    const View& first = views[0];
    CHECK(first.dtype == DType::kF32 && (first.rows <= 1 || first.stride == first.cols));
    std::int64_t widest = 0;
    bool aligned = first.stride % 4 == 0;
    for (std::size_t i = 0; i < views.size(); ++i) {
      widest = std::max(widest, begins[i + 1] - begins[i]);
      aligned &= begins[i + 1] % 4 == 0;
    }
    const std::lock_guard lock(mutex_);
    if (!peers_.empty() && aligned && first.rows * widest <= kRoom) {
      for (std::size_t i = 0; i < views.size(); ++i)
        devices_[i]->note(peer_gather_cuda(peers_[i], values_of(views[i]), first.rows, first.stride, begins.data(),
                                           devices_[i]->stream()),
                          "a gather");
      return;
    }
    // A sum again, of columns that are zero where they are another's.
    for (std::size_t i = 0; i < views.size(); ++i) {
      clear(*devices_[i], views[i].col_range(0, begins[i]));
      clear(*devices_[i], views[i].col_range(begins[i + 1], views[i].cols - begins[i + 1]));
    }
    const auto count = static_cast<std::size_t>(first.rows * first.cols);
    by_nccl([&](std::size_t i) {
      return nccl_.reduce(views[i].data, views[i].data, count, Nccl::kFloat32, Nccl::kSum, 0, comms_[i],
                          devices_[i]->stream());
    });
  }

 private:
  static float* values_of(const View& view) { return reinterpret_cast<float*>(view.data); }

  // One call on every card, as one of NCCL's groups.
  template <class Call>
  void by_nccl(const Call& call) const {
    int result = nccl_.group_start();
    for (std::size_t i = 0; i < devices_.size() && result == 0; ++i) result = call(i);
    const int end = nccl_.group_end();
    if (result == 0) result = end;
    if (result != 0)
      devices_[0]->note(fmt::format("NCCL: {} ({})", nccl_.error_text(result), nccl_.last_error(comms_[0])));
  }

  static void clear(const CudaDevice& device, View view) {
    if (view.rows == 0 || view.cols == 0) return;
    device.note(cudaMemset2DAsync(view.data, static_cast<std::size_t>(view.stride) * sizeof(float), 0,
                                  static_cast<std::size_t>(view.cols) * sizeof(float),
                                  static_cast<std::size_t>(view.rows), device.stream()),
                "clearing columns");
  }

  // NCCL connects the cards at the first calls of a size, which cannot be done while operations are recorded.
  Status warm_up() {
    for (const std::int64_t count : {std::int64_t{1} << 10, std::int64_t{1} << 18, std::int64_t{1} << 23}) {
      std::vector<Buffer> buffers;
      std::vector<View> views;
      std::vector<std::int64_t> begins{0};
      for (const CudaDevice* device : devices_) {
        ASSIGN_OR_RETURN(Buffer buffer, device->allocate(1, count, DType::kF32));
        clear(*device, buffer.view());
        views.push_back(buffer.view());
        buffers.push_back(std::move(buffer));
        begins.push_back(count);
      }
      sum(views);
      gather(views, begins);
    }
    for (const CudaDevice* device : devices_) RETURN_IF_ERROR(device->wait());
    return {};
  }

  // Memory that all cards reach; none where they do not, or are too many.
  Status meet_peers() {
    const std::size_t count = devices_.size();
    if (count > kMostPeers) return {};
    for (const CudaDevice* device : devices_)
      for (const CudaDevice* other : devices_) {
        if (device == other) continue;
        device->stream();  // makes the card current
        int can = 0;
        cudaDeviceCanAccessPeer(&can, device->index(), other->index());
        const cudaError_t error = can != 0 ? cudaDeviceEnablePeerAccess(other->index(), 0) : cudaErrorInvalidDevice;
        cudaGetLastError();  // what it says is not the next launch's
        if (error != cudaSuccess && error != cudaErrorPeerAccessAlreadyEnabled) return {};
      }
    std::vector<Peers> peers(count);
    Status status;
    for (std::size_t i = 0; i < count && status; ++i) {
      const std::size_t inbox = 2 * count * static_cast<std::size_t>(kRoom) * sizeof(float);
      const std::size_t words = (1 + count) * kPeerBlocks * sizeof(std::uint32_t);
      const cudaStream_t stream = devices_[i]->stream();
      void *data = nullptr, *numbers = nullptr;
      if (cudaMalloc(&data, inbox) != cudaSuccess || cudaMalloc(&numbers, words) != cudaSuccess ||
          cudaMemsetAsync(numbers, 0, words, stream) != cudaSuccess) {
        cudaGetLastError();
        status = fail(Code::kResourceExhausted, "cuda:{} has no memory for {} bytes that cards send each other",
                      devices_[i]->index(), inbox);
      }
      peers[i].turn = static_cast<std::uint32_t*>(numbers);
      for (std::size_t other = 0; other < count; ++other) {
        peers[other].inbox[i] = static_cast<float*>(data);
        peers[other].flags[i] = static_cast<std::uint32_t*>(numbers) + kPeerBlocks;
      }
      peers[i].own = static_cast<int>(i);
      peers[i].count = static_cast<int>(count);
      peers[i].room = kRoom;
      if (status) status = devices_[i]->wait();
    }
    peers_ = std::move(peers);  // also what there is of them: it is freed with this
    return status;
  }

  const std::vector<const CudaDevice*> devices_;
  Nccl nccl_;
  std::vector<NcclComm*> comms_;
  std::vector<Peers> peers_;  // empty: everything goes through NCCL
  mutable std::mutex mutex_;  // calls of two threads are in the same order on all cards
};

}  // namespace

Result<std::unique_ptr<Collective>> make_cuda_collective(std::vector<const CudaDevice*> devices) {
  auto out = std::make_unique<CudaCollective>(std::move(devices));
  RETURN_IF_ERROR(out->start());
  return out;
}

}  // namespace chiasm
