#include "kernels/devices.h"

#include <charconv>
#include <optional>

#ifdef CHIASM_CUDA
#include "kernels/ops_cuda.h"
#endif

namespace chiasm {
namespace {

// The card's number; nothing where the name is not a card's.
std::optional<int> card_of(std::string_view device) {
  if (device == "cuda") return 0;
  if (!device.starts_with("cuda:")) return std::nullopt;
  device.remove_prefix(5);
  int out = 0;
  const auto [end, error] = std::from_chars(device.data(), device.data() + device.size(), out);
  if (error != std::errc() || end != device.data() + device.size() || out < 0 || out > 1023) return std::nullopt;
  return out;
}

Result<std::unique_ptr<Ops>> make_card_ops([[maybe_unused]] int index, [[maybe_unused]] ThreadPool& threads) {
#ifdef CHIASM_CUDA
  return make_cuda_ops(index, threads);
#else
  return fail(Code::kUnavailable, "this program was built without CUDA");
#endif
}

}  // namespace

Status check_device(std::string_view device) {
  if (device == "auto" || device == "cpu" || card_of(device)) return {};
  return fail(Code::kInvalidArgument, "device: expected auto, cpu or cuda:N, got '{}'", device);
}

Result<std::unique_ptr<Ops>> make_ops(std::string_view device, ThreadPool& threads) {
  RETURN_IF_ERROR(check_device(device));
  if (const auto card = card_of(device)) return make_card_ops(*card, threads);
  if (device == "auto") {
    if (auto ops = make_card_ops(0, threads)) return ops;
  }
  return make_cpu_ops(threads);
}

}  // namespace chiasm
