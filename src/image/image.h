// A decoded picture: 8-bit RGB rows without padding, and the names of the file formats we read.
//
// Leaves reading files to probe.h and decode.h. Thread contract: a plain value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

struct ImageSize {
  std::int64_t width = 0, height = 0;
  bool operator==(const ImageSize&) const = default;
};

// Pixels of a size; an error naming the size when a side is not in [1, 2^31) .
Result<std::uint64_t> pixel_count(ImageSize size);

enum class Format : std::uint8_t { kJpeg, kPng, kWebp, kGif, kBmp };

std::string_view format_name(Format format);  // "JPEG", "PNG", "WebP", "GIF", "BMP"

// height x width x 3 bytes, rows top to bottom, channels R, G, B.
class Image {
 public:
  Image() = default;

  // Black. An error when a side is not in [1, 2^31) or the memory cannot be had.
  static Result<Image> create(ImageSize size);

  ImageSize size() const { return size_; }
  std::int64_t width() const { return size_.width; }
  std::int64_t height() const { return size_.height; }
  std::size_t row_bytes() const { return static_cast<std::size_t>(size_.width) * 3; }

  std::uint8_t* row(std::int64_t y) { return pixels_.data() + static_cast<std::size_t>(y) * row_bytes(); }
  const std::uint8_t* row(std::int64_t y) const { return pixels_.data() + static_cast<std::size_t>(y) * row_bytes(); }
  std::span<std::uint8_t> pixels() { return pixels_; }
  std::span<const std::uint8_t> pixels() const { return pixels_; }

  bool operator==(const Image&) const = default;

 private:
  ImageSize size_;
  std::vector<std::uint8_t> pixels_;
};

}  // namespace chiasm
