#include "tensor/tensor.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "base/check.h"

namespace chiasm {
namespace {

// Weights may lie at any offset of a mapped file: no aligned loads here.
template <class T>
T load(const std::byte* at) {
  T out;
  std::memcpy(&out, at, sizeof(T));
  return out;
}

}  // namespace

std::string shape_text(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  return out + "]";
}

Result<std::int64_t> element_count(const Shape& shape) {
  std::int64_t count = 1;
  bool overflow = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return fail(Code::kInvalidArgument, "shape {} has a negative dimension", shape_text(shape));
    // No early exit: [2^62, 8, 0] holds nothing but is not a shape to compute with.
    overflow |= __builtin_mul_overflow(count, size, &count);
  }
  if (overflow) return fail(Code::kInvalidArgument, "shape {} has more than 2^63 elements", shape_text(shape));
  return count;
}

Result<std::uint64_t> byte_count(const Shape& shape, DType dtype) {
  ASSIGN_OR_RETURN(const std::int64_t count, element_count(shape));
  const auto elements = static_cast<std::uint64_t>(count);
  std::uint64_t bytes = 0, bits = 0;
  if (size_of(dtype) != 0) {
    if (__builtin_mul_overflow(elements, std::uint64_t{size_of(dtype)}, &bytes))
      return fail(Code::kInvalidArgument, "shape {} of {} has more than 2^64 bytes", shape_text(shape),
                  dtype_name(dtype));
    return bytes;
  }
  if (__builtin_mul_overflow(elements, std::uint64_t{bits_of(dtype)}, &bits) || bits % 8 != 0)
    return fail(Code::kInvalidArgument, "shape {} of {} is no whole number of bytes below 2^61", shape_text(shape),
                dtype_name(dtype));
  return bits / 8;
}

float element_as_f32(const TensorView& view, std::int64_t i) {
  const std::byte* at = view.bytes.data() + static_cast<std::size_t>(i) * size_of(view.dtype);
  CHECK(is_weight_dtype(view.dtype) && i >= 0 &&
        (static_cast<std::size_t>(i) + 1) * size_of(view.dtype) <= view.bytes.size());
  switch (view.dtype) {
    case DType::kF32: return load<float>(at);
    case DType::kBF16: return bf16_to_f32(load<std::uint16_t>(at));
    case DType::kF16: return f16_to_f32(load<std::uint16_t>(at));
    default: return 0;
  }
}

Result<std::vector<float>> to_f32(const TensorView& view) {
  ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count(view.shape, view.dtype));
  if (bytes != view.bytes.size())
    return fail(Code::kInvalidArgument, "a tensor of shape {} and dtype {} has {} bytes, got {}",
                shape_text(view.shape), dtype_name(view.dtype), bytes, view.bytes.size());
  if (!is_weight_dtype(view.dtype))
    return fail(Code::kInvalidArgument, "expected a tensor of F32, BF16 or F16, got {}", dtype_name(view.dtype));
  const std::byte* at = view.bytes.data();
  std::vector<float> out(bytes / size_of(view.dtype));
  switch (view.dtype) {
    case DType::kF32:
      if (bytes != 0) std::memcpy(out.data(), at, bytes);
      return out;
    case DType::kBF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_f32(load<std::uint16_t>(at + 2 * i));
      return out;
    case DType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = f16_to_f32(load<std::uint16_t>(at + 2 * i));
      return out;
    default: return out;
  }
}

void Matrix::Free::operator()(float* p) const { std::free(p); }

Matrix::Matrix(std::int64_t rows, std::int64_t cols) : rows_(rows), cols_(cols) {
  constexpr std::size_t kAlignment = 64;
  std::int64_t count = 0, bytes = 0;
  CHECK(rows >= 0 && cols >= 0 && !__builtin_mul_overflow(rows, cols, &count) &&
        !__builtin_mul_overflow(count, std::int64_t{sizeof(float)}, &bytes) && bytes <= INT64_MAX - 64);
  if (count == 0) return;
  const std::size_t rounded = (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
  data_.reset(static_cast<float*>(std::aligned_alloc(kAlignment, rounded)));
  if (data_ == nullptr) throw std::bad_alloc();
}

Result<Matrix> Matrix::create(std::int64_t rows, std::int64_t cols) {
  ASSIGN_OR_RETURN(const std::uint64_t bytes, byte_count({rows, cols}, DType::kF32));
  const auto refused = [&] {
    return fail(Code::kResourceExhausted, "no memory for a {} x {} matrix ({} bytes)", rows, cols, bytes);
  };
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 47;  // the address space; sanitizers abort beyond theirs
  if (bytes > kMostBytes) return refused();
  try {
    return Matrix(rows, cols);
  } catch (const std::bad_alloc&) {
    return refused();
  }
}

}  // namespace chiasm
