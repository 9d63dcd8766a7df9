// Shapes, non-owning views of row-major tensors, and an owning f32 buffer.
//
// Views are never stored past the call they are given to, but for tensors whose owner is stored with them. Thread
// contract: values; a view adds no synchronisation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace chiasm {

using Shape = std::vector<std::int64_t>;

std::string shape_text(const Shape& shape);  // "[2, 3]"

// Elements and bytes, checked in 64 bits; an error on a negative dimension, overflow, or elements smaller than a byte
// that do not fill whole ones.
Result<std::int64_t> element_count(const Shape& shape);
Result<std::uint64_t> byte_count(const Shape& shape, DType dtype);

// A row-major tensor somewhere in memory, of any dtype: a weight in a mapped file.
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;
  // What holds `bytes` for as long as it is held itself; without it they live as long as the maker of the view says.
  std::shared_ptr<const void> owner = nullptr;
};

// Reads element i of a F32/BF16/F16 view.
float element_as_f32(const TensorView& view, std::int64_t i);
// All elements as f32; an error for other dtypes than those three.
Result<std::vector<float>> to_f32(const TensorView& view);

// f32 matrix views for the kernels: `rows` rows of `cols` elements, `stride` elements from row to row.
struct ConstMatrixView {
  const float* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
  const float* row(std::int64_t i) const { return data + i * stride; }
  ConstMatrixView row_range(std::int64_t begin, std::int64_t count) const { return {row(begin), count, cols, stride}; }
  ConstMatrixView col_range(std::int64_t begin, std::int64_t count) const {
    return {data + begin, rows, count, stride};
  }
};

struct MatrixView {
  float* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
  float* row(std::int64_t i) const { return data + i * stride; }
  MatrixView row_range(std::int64_t begin, std::int64_t count) const { return {row(begin), count, cols, stride}; }
  MatrixView col_range(std::int64_t begin, std::int64_t count) const { return {data + begin, rows, count, stride}; }
  operator ConstMatrixView() const { return {data, rows, cols, stride}; }  // NOLINT: a view of the same memory
};

// An owning f32 matrix, 64-byte aligned, contents undefined until written.
class Matrix {
 public:
  Matrix() = default;
  // For sizes that were checked before; throws std::bad_alloc.
  Matrix(std::int64_t rows, std::int64_t cols);
  // For sizes from outside: kResourceExhausted, naming the size, when the memory cannot be had.
  static Result<Matrix> create(std::int64_t rows, std::int64_t cols);
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t size() const { return rows_ * cols_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  float* row(std::int64_t i) { return data_.get() + i * cols_; }
  const float* row(std::int64_t i) const { return data_.get() + i * cols_; }
  MatrixView view() { return {data_.get(), rows_, cols_, cols_}; }
  ConstMatrixView view() const { return {data_.get(), rows_, cols_, cols_}; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::int64_t rows_ = 0, cols_ = 0;
  std::unique_ptr<float[], Free> data_;
};

}  // namespace chiasm
