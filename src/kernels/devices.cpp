#include "kernels/devices.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gemm_quantised_cpu.h"
#include "kernels/ops_group.h"

#ifdef CHIASM_CUDA
#include "kernels/ops_cuda.h"
#endif

namespace chiasm {
namespace {

constexpr std::size_t kMostDevices = 64;

// What a name says: `count` devices that are the CPU, or cards, or whatever is there.
struct Named {
  enum class Kind : std::uint8_t { kAuto, kCpu, kCards } kind = Kind::kAuto;
  std::vector<int> cards;
  std::size_t count = 1;
};

std::optional<int> number_of(std::string_view text) {
  int out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size() || out < 0 || out > 1023) return std::nullopt;
  return out;
}

// The card's number; nothing where the name is not a card's.
std::optional<int> card_of(std::string_view device) {
  if (device == "cuda") return 0;
  return device.starts_with("cuda:") ? number_of(device.substr(5)) : std::nullopt;
}

Result<Named> parse(std::string_view device) {
  const auto unknown = [&] {
    return fail(Code::kInvalidArgument, "device: expected auto, cpu, cuda:N or several cards as in cuda:0,1, got '{}'",
                device);
  };
  Named out;
  if (device == "auto") return out;
  out.count = 0;
  for (std::string_view rest = device;; ++out.count) {
    const std::size_t comma = rest.find(',');
    const std::string_view one = rest.substr(0, comma);
    std::optional<int> card = card_of(one);
    if (!card && !out.cards.empty()) card = number_of(one);
    if (card ? out.kind == Named::Kind::kCpu : one != "cpu" || !out.cards.empty()) return unknown();
    out.kind = card ? Named::Kind::kCards : Named::Kind::kCpu;
    if (card && std::ranges::find(out.cards, *card) != out.cards.end())
      return fail(Code::kInvalidArgument, "device: cuda:{} is named twice in '{}'", *card, device);
    if (card) out.cards.push_back(*card);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (++out.count > kMostDevices)
    return fail(Code::kInvalidArgument, "device: expected at most {}, got {}", kMostDevices, out.count);
  return out;
}

Result<std::unique_ptr<Ops>> make_card_ops([[maybe_unused]] const std::vector<int>& cards,
                                           [[maybe_unused]] ThreadPool& threads) {
#ifdef CHIASM_CUDA
  return cards.size() == 1 ? make_cuda_ops(cards[0], threads) : make_cuda_group_ops(cards, threads);
#else
  return fail(Code::kUnavailable, "this program was built without CUDA");
#endif
}

// The fastest there is, or the one of the name in CHIASM_INTEGER_KERNEL.
Result<const IntegerKernel*> chosen_kernel() {
  const auto kernels = integer_kernels();
  const char* const wanted = std::getenv("CHIASM_INTEGER_KERNEL");
  if (wanted == nullptr || *wanted == '\0') return kernels.front();
  std::string there;
  for (const IntegerKernel* kernel : kernels) {
    if (kernel->name == wanted) return kernel;
    there += fmt::format("{}{}", there.empty() ? "" : ", ", kernel->name);
  }
  return fail(Code::kInvalidArgument, "CHIASM_INTEGER_KERNEL: this machine has {}, got '{}'", there, wanted);
}

}  // namespace

Status check_device(std::string_view device) {
  ASSIGN_OR_RETURN([[maybe_unused]] const Named named, parse(device));
  return {};
}

Status check_one_device(std::string_view device) {
  ASSIGN_OR_RETURN(const Named named, parse(device));
  if (named.count == 1) return {};
  return fail(Code::kInvalidArgument, "device: expected one, got {}: only a language model is divided", named.count);
}

std::string first_device(std::string_view device) { return std::string(device.substr(0, device.find(','))); }

Result<std::unique_ptr<Ops>> make_ops(std::string_view device, ThreadPool& threads) {
  ASSIGN_OR_RETURN(const Named named, parse(device));
  if (named.kind == Named::Kind::kCards) return make_card_ops(named.cards, threads);
  if (named.kind == Named::Kind::kAuto) {
    if (auto ops = make_card_ops({0}, threads)) return ops;
  }
  ASSIGN_OR_RETURN(const IntegerKernel* const kernel, chosen_kernel());
  if (named.count == 1) return make_cpu_ops(threads, *kernel);
  std::vector<std::unique_ptr<Ops>> members;
  for (std::size_t i = 0; i < named.count; ++i) members.push_back(make_cpu_ops(threads, *kernel));
  return make_group_ops(std::move(members), make_host_collective(), threads);
}

}  // namespace chiasm
