// Matrices in the memory of an Ops: views that carry a dtype, and the buffer that owns what they show.
//
// Where an Ops computes on the host its memory is the host's, and host matrices (tensor.h) are views of it as they are.
// Elsewhere only that Ops may follow the pointers. Thread contract: values; a view adds no synchronisation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace chiasm {

// `rows` rows of `cols` elements (F32 or BF16), `stride` elements from row to row.
struct ConstView {
  const std::byte* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
  DType dtype = DType::kF32;

  ConstView() = default;
  ConstView(const std::byte* data_in, std::int64_t rows_in, std::int64_t cols_in, std::int64_t stride_in,
            DType dtype_in)
      : data(data_in), rows(rows_in), cols(cols_in), stride(stride_in), dtype(dtype_in) {}
  // F32 values.
  ConstView(const float* values, std::int64_t rows_in, std::int64_t cols_in, std::int64_t stride_in)
      : data(reinterpret_cast<const std::byte*>(values)), rows(rows_in), cols(cols_in), stride(stride_in) {}
  ConstView(ConstMatrixView m) : ConstView(m.data, m.rows, m.cols, m.stride) {}  // NOLINT: a view of the same memory
  ConstView(MatrixView m) : ConstView(m.data, m.rows, m.cols, m.stride) {}       // NOLINT: likewise

  ConstView row_range(std::int64_t begin, std::int64_t count) const {
    return {data + begin * stride * static_cast<std::int64_t>(size_of(dtype)), count, cols, stride, dtype};
  }
  ConstView col_range(std::int64_t begin, std::int64_t count) const {
    return {data + begin * static_cast<std::int64_t>(size_of(dtype)), rows, count, stride, dtype};
  }
  // For an Ops that computes on the host: the values as they are.
  ConstMatrixView f32() const {
    CHECK(dtype == DType::kF32);
    return {reinterpret_cast<const float*>(data), rows, cols, stride};
  }
};

struct View {
  std::byte* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
  DType dtype = DType::kF32;

  View() = default;
  View(std::byte* data_in, std::int64_t rows_in, std::int64_t cols_in, std::int64_t stride_in, DType dtype_in)
      : data(data_in), rows(rows_in), cols(cols_in), stride(stride_in), dtype(dtype_in) {}
  View(float* values, std::int64_t rows_in, std::int64_t cols_in, std::int64_t stride_in)
      : data(reinterpret_cast<std::byte*>(values)), rows(rows_in), cols(cols_in), stride(stride_in) {}
  View(MatrixView m) : View(m.data, m.rows, m.cols, m.stride) {}            // NOLINT: a view of the same memory
  operator ConstView() const { return {data, rows, cols, stride, dtype}; }  // NOLINT: likewise

  View row_range(std::int64_t begin, std::int64_t count) const {
    return {data + begin * stride * static_cast<std::int64_t>(size_of(dtype)), count, cols, stride, dtype};
  }
  View col_range(std::int64_t begin, std::int64_t count) const {
    return {data + begin * static_cast<std::int64_t>(size_of(dtype)), rows, count, stride, dtype};
  }
  MatrixView f32() const {
    CHECK(dtype == DType::kF32);
    return {reinterpret_cast<float*>(data), rows, cols, stride};
  }
};

template <class A, class B>
bool same_shape(const A& a, const B& b) {
  return a.rows == b.rows && a.cols == b.cols;
}

struct BufferFree {
  void (*free)(void* context, std::byte* data) = nullptr;
  void* context = nullptr;
  void operator()(std::byte* data) const { free(context, data); }
};

// An owning matrix; contents undefined until written. Made by Ops::allocate, and freed through what that Ops left here:
// the Ops must outlive it.
class Buffer {
 public:
  using Free = BufferFree;

  Buffer() = default;
  Buffer(std::byte* data, Free free, std::int64_t rows, std::int64_t cols, DType dtype)
      : rows_(rows), cols_(cols), dtype_(dtype), data_(data, free) {}
  // A host matrix.
  explicit Buffer(Matrix matrix)
      : rows_(matrix.rows()),
        cols_(matrix.cols()),
        data_(nullptr, Free{[](void* context, std::byte*) { delete static_cast<Matrix*>(context); }, nullptr}) {
    auto kept = std::make_unique<Matrix>(std::move(matrix));
    if (kept->size() == 0) return;
    auto* values = reinterpret_cast<std::byte*>(kept->data());
    data_ = {values, Free{data_.get_deleter().free, kept.release()}};
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t size() const { return rows_ * cols_; }
  DType dtype() const { return dtype_; }
  View view() { return {data_.get(), rows_, cols_, cols_, dtype_}; }
  ConstView view() const { return {data_.get(), rows_, cols_, cols_, dtype_}; }
  // Of an F32 buffer; null where it is empty.
  const float* f32() const { return size() == 0 ? nullptr : reinterpret_cast<const float*>(data_.get()); }

 private:
  std::int64_t rows_ = 0, cols_ = 0;
  DType dtype_ = DType::kF32;
  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace chiasm
