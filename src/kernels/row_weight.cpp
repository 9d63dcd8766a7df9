#include "kernels/row_weight.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/huge_memory.h"

namespace chiasm {
namespace {

std::int64_t whole_blocks(std::int64_t bytes) {
  return (bytes + RowWeight::kBlockBytes - 1) / RowWeight::kBlockBytes * RowWeight::kBlockBytes;
}

// The part in memory of its own, padded.
Result<RowWeight::Part> copy_of(const RowWeight::Part& from, ThreadPool& threads) {
  RowWeight::Part out = from;
  out.stride = whole_blocks(from.stride);
  const std::int64_t rows = std::max(from.rows, RowWeight::kFewestRows);
  ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count({rows, out.stride}, DType::kU8));
  auto* memory = static_cast<std::byte*>(huge_memory(bytes));
  if (memory == nullptr) return fail(Code::kResourceExhausted, "no memory for a weight of {} bytes", bytes);
  out.owner = std::shared_ptr<const void>(memory, [](const void* p) { std::free(const_cast<void*>(p)); });
  out.data = memory;
  constexpr std::int64_t kRows = 64;
  threads.parallel_for((rows + kRows - 1) / kRows, [&](std::int64_t task, int) {
    for (std::int64_t i = task * kRows; i < std::min(rows, (task + 1) * kRows); ++i) {
      const std::int64_t there = i < from.rows ? from.stride : 0;
      std::byte* to = memory + i * out.stride;
      if (there > 0) std::memcpy(to, from.data + i * from.stride, static_cast<std::size_t>(there));
      std::memset(to + there, 0, static_cast<std::size_t>(out.stride - there));
    }
  });
  return out;
}

}  // namespace

Result<std::unique_ptr<const RowWeight>> RowWeight::make(const WeightRows& weight, ThreadPool& threads) {
  std::unique_ptr<RowWeight> out(new RowWeight(weight));
  out->bytes_ = out->bias_.size() * sizeof(float);
  const std::int64_t stride = weight.depth() * static_cast<std::int64_t>(size_of(weight.dtype()));
  for (const WeightRows::Part& from : weight.parts()) {
    Part part{from.begin, from.end - from.begin, from.data, stride, from.owner};
    const bool in_place = part.owner != nullptr && part.rows >= kFewestRows && stride == whole_blocks(stride);
    if (!in_place) {
      ASSIGN_OR_RETURN(part, copy_of(part, threads));
    }
    out->in_place_ = out->in_place_ || in_place;
    out->bytes_ += static_cast<std::uint64_t>(std::max(part.rows, kFewestRows) * part.stride);
    out->parts_.push_back(std::move(part));
  }
  return out;
}

float RowWeight::at(std::int64_t output, std::int64_t k) const {
  const auto part =
      std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return output < p.begin + p.rows; });
  const std::byte* row = part->data + (output - part->begin) * part->stride;
  if (dtype_ == DType::kF32) {
    float value = 0;
    std::memcpy(&value, row + k * 4, 4);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, row + k * 2, 2);
  return dtype_ == DType::kBF16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

}  // namespace chiasm
