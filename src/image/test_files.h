// Pictures and vectors of tests/data/images, for the tests of this folder.
#pragma once

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"
#include "image/image.h"
#include "tensor/safetensors.h"

namespace chiasm::testing {

inline std::filesystem::path images_dir() { return source_dir() / "tests/data/images"; }

inline std::vector<std::byte> bytes_of(const std::string& name) {
  auto bytes = read_file(images_dir() / name, 1 << 20);
  if (!bytes) ADD_FAILURE() << bytes.error().message;
  return bytes ? std::move(*bytes) : std::vector<std::byte>();
}

// A [height, width, 3] tensor of U8.
inline Image image_of(const TensorView& tensor) {
  EXPECT_EQ(tensor.dtype, DType::kU8);
  EXPECT_EQ(tensor.shape.size(), 3U);
  Image image = Image::create({tensor.shape[1], tensor.shape[0]}).value();
  EXPECT_EQ(image.pixels().size(), tensor.bytes.size());
  std::memcpy(image.pixels().data(), tensor.bytes.data(), tensor.bytes.size());
  return image;
}

// Opens a file of vectors; a failure ends the test program's case.
inline SafetensorsFile vectors_of(const std::string& name) {
  auto file = SafetensorsFile::open(images_dir() / name);
  if (!file) throw std::runtime_error(file.error().message);
  return std::move(*file);
}

}  // namespace chiasm::testing
