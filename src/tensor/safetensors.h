// The safetensors container: weights, features on disk and on the wire, goldens.
//
// Format: https://github.com/huggingface/safetensors (u64 little-endian header size, JSON header, data). The reader
// checks everything before any tensor is handed out: header size against file and limit, offsets against shape and
// dtype, overlap, gaps, duplicates, trailing bytes. Thread contract: immutable after open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace chiasm {

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100ULL << 20;  // as the format's own library

struct TensorInfo {
  DType dtype = DType::kF32;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes in the data part
};

// A parsed header over bytes that somebody else owns.
class SafetensorsView {
 public:
  // `source` names the bytes in errors. Tensors may be of any dtype that the format knows; other words are an error.
  // Bytes that end too early: kDataLoss, with how many are there and how many are needed.
  static Result<SafetensorsView> parse(std::span<const std::byte> bytes, std::string source);

  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }
  Result<TensorView> tensor(std::string_view name) const;  // absent: an error that names file and tensor
  std::span<const std::byte> data() const { return data_; }

 private:
  std::string source_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::span<const std::byte> data_;
};

// A mapped file and its header.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  const SafetensorsView& view() const { return view_; }
  const MappedFile& file() const { return *file_; }

 private:
  std::unique_ptr<MappedFile> file_;
  SafetensorsView view_;
};

struct NamedTensor {
  std::string name;
  TensorView tensor;
};

// The header (8-byte size and JSON, padded with spaces to a multiple of 8) for tensors laid out in the given order.
Result<std::string> safetensors_header(std::span<const NamedTensor> tensors,
                                       const std::map<std::string, std::string, std::less<>>& metadata);

// Writes a file of these tensors atomically, streaming their bytes. `written` (may be null) is told of each part of
// their bytes once it is written, so that mapped sources can be released on the way; an error of it ends the work, and
// no file appears.
Status write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                         const std::map<std::string, std::string, std::less<>>& metadata,
                         const std::function<Status(std::span<const std::byte>)>& written = nullptr);

}  // namespace chiasm
