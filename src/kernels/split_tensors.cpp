#include "kernels/split_tensors.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"
#include "kernels/weight_rows.h"

namespace chiasm {
namespace {

// Contents undefined: what is large is first touched by who fills it.
Result<std::span<std::byte>> make_room(const Result<std::uint64_t>& bytes, TensorShare& out) {
  if (!bytes) return tl::unexpected(bytes.error());
  auto* const room = new (std::nothrow) std::byte[*bytes];
  if (room == nullptr) return fail(Code::kResourceExhausted, "no memory for {} bytes of a weight", *bytes);
  out.copies.emplace_back(room);
  return std::span(room, *bytes);
}

// Rows [begin, begin + count) of a tensor, and zeros up to `width`.
Result<TensorView> row_share(const TensorView& tensor, const Share& share, std::int64_t width, TensorShare& out) {
  const std::int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
  if (rows == 0 || share.begin < 0 || share.count < 0 || share.count > width || share.begin > rows ||
      share.count > rows - share.begin)
    return fail(Code::kInvalidArgument, "rows {} to {} of a tensor of shape {}", share.begin, share.begin + share.count,
                shape_text(tensor.shape));
  const std::size_t row_bytes = tensor.bytes.size() / static_cast<std::size_t>(rows);
  TensorView view = tensor;
  view.shape[0] = width;
  view.bytes = tensor.bytes.subspan(static_cast<std::size_t>(share.begin) * row_bytes,
                                    static_cast<std::size_t>(share.count) * row_bytes);
  if (share.count == width) return view;
  ASSIGN_OR_RETURN(const std::span<std::byte> copy, make_room(byte_count(view.shape, view.dtype), out));
  std::fill(std::copy(view.bytes.begin(), view.bytes.end(), copy.begin()), copy.end(), std::byte{0});
  view.bytes = copy;
  view.owner = nullptr;
  return view;
}

// Columns likewise, of all rows.
Result<TensorView> column_share(const WeightRows& rows, const Share& share, std::int64_t width, ThreadPool& threads,
                                TensorShare& out) {
  if (share.begin < 0 || share.count < 0 || share.count > width || share.begin > rows.depth() ||
      share.count > rows.depth() - share.begin)
    return fail(Code::kInvalidArgument, "columns {} to {} of a weight of {}", share.begin, share.begin + share.count,
                rows.depth());
  const std::size_t size = size_of(rows.dtype());
  ASSIGN_OR_RETURN(const std::span<std::byte> copy, make_room(byte_count({rows.rows(), width}, rows.dtype()), out));
  const std::size_t own = static_cast<std::size_t>(share.count) * size,
                    row_bytes = static_cast<std::size_t>(width) * size;
  constexpr std::int64_t kRows = 64;  // of a thread
  threads.parallel_for((rows.rows() + kRows - 1) / kRows, [&](std::int64_t piece, int) {
    for (std::int64_t i = piece * kRows; i < std::min(rows.rows(), (piece + 1) * kRows); ++i) {
      std::byte* const to = copy.data() + static_cast<std::size_t>(i) * row_bytes;
      std::memcpy(to, rows.row(i) + static_cast<std::size_t>(share.begin) * size, own);
      std::memset(to + own, 0, row_bytes - own);
    }
  });
  return TensorView{rows.dtype(), {rows.rows(), width}, copy};
}

}  // namespace

std::vector<std::int64_t> joined_begins(std::int64_t rows, int parts) {
  constexpr std::int64_t kAligned = 32;
  std::vector<std::int64_t> out;
  for (int i = 0; i < parts; ++i) out.push_back(rows * i / parts / kAligned * kAligned);
  out.push_back(rows);
  return out;
}

Result<TensorShare> share_of(std::span<const TensorView> weights, std::span<const TensorView> biases,
                             const Split& split, int part, int parts, ThreadPool& threads) {
  ASSIGN_OR_RETURN(const WeightRows joined, WeightRows::join(weights, biases));
  const auto own = static_cast<std::size_t>(part);
  TensorShare out;
  switch (split.kind) {
    case Split::Kind::kNone:
      out.weights.assign(weights.begin(), weights.end());
      out.biases.assign(biases.begin(), biases.end());
      return out;
    case Split::Kind::kOutputs:
      CHECK(split.shares.size() == weights.size() && (biases.empty() || biases.size() == weights.size()));
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const Shares& shares = split.shares[i];
        ASSIGN_OR_RETURN(TensorView view, row_share(weights[i], shares.of_part[own], shares.width, out));
        out.weights.push_back(std::move(view));
        if (biases.empty()) continue;
        ASSIGN_OR_RETURN(TensorView bias, row_share(biases[i], shares.of_part[own], shares.width, out));
        out.biases.push_back(std::move(bias));
      }
      return out;
    case Split::Kind::kInputs: {
      CHECK(split.shares.size() == 1);
      const Shares& shares = split.shares[0];
      ASSIGN_OR_RETURN(TensorView view, column_share(joined, shares.of_part[own], shares.width, threads, out));
      out.weights.push_back(std::move(view));
      if (part == 0) out.biases.assign(biases.begin(), biases.end());
      return out;
    }
    case Split::Kind::kJoined: {
      CHECK(weights.size() == 1);
      const std::vector<std::int64_t> begins = joined_begins(joined.rows(), parts);
      const Share share{begins[own], begins[own + 1] - begins[own]};
      if (share.count == 0) return fail(Code::kInvalidArgument, "{} outputs among {} parts", joined.rows(), parts);
      ASSIGN_OR_RETURN(TensorView view, row_share(weights[0], share, share.count, out));
      out.weights.push_back(std::move(view));
      for (const TensorView& bias : biases) {
        ASSIGN_OR_RETURN(TensorView values, row_share(bias, share, share.count, out));
        out.biases.push_back(std::move(values));
      }
      return out;
    }
  }
  CHECK(false);
}

}  // namespace chiasm
