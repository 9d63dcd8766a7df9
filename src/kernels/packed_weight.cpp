#include "kernels/packed_weight.h"

#include <cstdlib>
#include <cstring>

#include "kernels/huge_memory.h"

namespace chiasm {
namespace {

// Output features of one panel from their rows; T is an integer as wide as the dtype.
template <class T>
void pack_panel(const WeightRows& weight, std::int64_t first, std::int64_t row_count, T* out) {
  const std::int64_t depth = weight.depth();
  const T* rows[kPanel];
  for (std::int64_t lane = 0; lane < row_count; ++lane)
    rows[lane] = reinterpret_cast<const T*>(weight.row(first + lane));
  constexpr std::int64_t kStrip = 64;  // a strip of 32 rows x 64 columns stays in L1 while it is turned
  for (std::int64_t k0 = 0; k0 < depth; k0 += kStrip) {
    const std::int64_t k1 = std::min(depth, k0 + kStrip);
    for (std::int64_t lane = 0; lane < row_count; ++lane)
      for (std::int64_t k = k0; k < k1; ++k) out[k * kPanel + lane] = rows[lane][k];
    for (std::int64_t lane = row_count; lane < kPanel; ++lane)
      for (std::int64_t k = k0; k < k1; ++k) out[k * kPanel + lane] = 0;
  }
}

}  // namespace

void PackedWeight::Free::operator()(std::byte* p) const { std::free(p); }

Result<std::unique_ptr<const PackedWeight>> PackedWeight::pack(const WeightRows& weight, ThreadPool& threads) {
  const std::int64_t rows = weight.rows(), depth = weight.depth();
  ASSIGN_OR_RETURN(const std::uint64_t padded,
                   byte_count({(rows + kPanel - 1) / kPanel * kPanel, depth}, weight.dtype()));
  std::unique_ptr<PackedWeight> out(new PackedWeight(weight));
  void* memory = huge_memory(padded);
  if (memory == nullptr) return fail(Code::kResourceExhausted, "no memory for a weight of {} bytes", padded);
  out->data_.reset(static_cast<std::byte*>(memory));
  threads.parallel_for(out->panels(), [&](std::int64_t p, int) {
    const std::int64_t first = p * kPanel, lanes = std::min(kPanel, rows - first);
    const auto offset = static_cast<std::uint64_t>(first * depth);
    if (weight.dtype() == DType::kF32) {
      pack_panel(weight, first, lanes, reinterpret_cast<std::uint32_t*>(out->data_.get()) + offset);
    } else {
      pack_panel(weight, first, lanes, reinterpret_cast<std::uint16_t*>(out->data_.get()) + offset);
    }
  });
  return out;
}

}  // namespace chiasm
