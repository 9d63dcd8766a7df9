// BMP, with a small decoder of our own: packed pixels, bit fields and run lengths.
//
// As Pillow reads them: a 32-bit pixel's fourth byte is alpha only where a mask says so, and a field of n bits becomes
// value * 255 / (2^n - 1), rounded down.
#include <algorithm>
#include <cstring>
#include <vector>

#include "image/bmp.h"
#include "image/codec.h"

namespace chiasm::codec {

namespace {

// One colour field of a packed pixel.
struct Field {
  std::uint32_t mask = 0;
  int shift = 0;
  std::uint64_t max = 0;

  explicit Field(std::uint32_t bits) : mask(bits), shift(bits ? __builtin_ctz(bits) : 0), max(bits >> shift) {}
  std::uint8_t value(std::uint32_t pixel) const {
    return static_cast<std::uint8_t>(std::uint64_t{(pixel & mask) >> shift} * 255 / max);
  }
};

void unpack_indexed(const BmpHeader& header, const std::uint8_t* from, std::uint8_t* to) {
  const int per_byte = 8 / header.bits;
  const std::uint32_t mask = (1U << header.bits) - 1;
  for (std::int64_t x = 0; x < header.size.width; ++x, to += 3) {
    const int shift = static_cast<int>(per_byte - 1 - x % per_byte) * header.bits;
    std::memcpy(to, header.palette[from[x / per_byte] >> shift & mask].data(), 3);
  }
}

void unpack_colour(const BmpHeader& header, const std::uint8_t* from, std::uint8_t* to) {
  const int bytes = header.bits / 8;
  if (header.bits == 24 && header.compression == BmpCompression::kNone) {
    for (std::int64_t x = 0; x < header.size.width; ++x, from += 3, to += 3) {
      to[0] = from[2], to[1] = from[1], to[2] = from[0];
    }
    return;
  }
  const Field red(header.masks[0]), green(header.masks[1]), blue(header.masks[2]), alpha(header.masks[3]);
  for (std::int64_t x = 0; x < header.size.width; ++x, from += bytes, to += 3) {
    std::uint32_t pixel = 0;
    for (int i = 0; i < bytes; ++i) pixel |= std::uint32_t{from[i]} << (8 * i);
    to[0] = red.value(pixel), to[1] = green.value(pixel), to[2] = blue.value(pixel);
    if (alpha.mask == 0) continue;
    const std::uint8_t a = alpha.value(pixel);
    for (int c = 0; c < 3; ++c) to[c] = on_white(to[c], a);
  }
}

Result<Image> decode_packed(Bytes bytes, const BmpHeader& header) {
  const std::uint64_t row_bits =
      static_cast<std::uint64_t>(header.size.width) * static_cast<std::uint64_t>(header.bits);
  const std::uint64_t stride = (row_bits + 31) / 32 * 4, height = static_cast<std::uint64_t>(header.size.height);
  // The last row may lack its padding.
  const std::uint64_t last_row = (row_bits + 7) / 8;
  const std::uint64_t available = bytes.size() - std::min<std::uint64_t>(header.pixels_at, bytes.size());
  if (available < last_row || (available - last_row) / stride < height - 1) {
    return fail(Code::kDataLoss, "BMP: truncated: expected {} rows of {} bytes from byte {}, the file has {} bytes",
                height, stride, header.pixels_at, bytes.size());
  }
  ASSIGN_OR_RETURN(Image image, Image::create(header.size));
  const auto* pixels = reinterpret_cast<const std::uint8_t*>(bytes.data()) + header.pixels_at;
  for (std::uint64_t y = 0; y < height; ++y) {
    std::uint8_t* to = image.row(static_cast<std::int64_t>(header.top_down ? y : height - 1 - y));
    (header.bits <= 8 ? unpack_indexed : unpack_colour)(header, pixels + stride * y, to);
  }
  return image;
}

// Palette indices in file order of rows; what the runs skip is index 0.
Result<std::vector<std::uint8_t>> expand_runs(Bytes bytes, const BmpHeader& header) {
  const std::int64_t width = header.size.width, height = header.size.height;
  const bool nibbles = header.compression == BmpCompression::kRle4;
  std::vector<std::uint8_t> indices(static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  std::int64_t x = 0, y = 0;
  const auto put = [&](std::uint32_t index) {
    if (x < width) indices[static_cast<std::size_t>(y * width + x)] = static_cast<std::uint8_t>(index);
    ++x;
  };
  const auto truncated = [&] {
    return fail(Code::kDataLoss, "BMP: truncated: the file ends after {} bytes, in row {} of {}", bytes.size(), y,
                height);
  };
  std::size_t at = std::min<std::uint64_t>(header.pixels_at, bytes.size());
  while (y < height) {
    if (bytes.size() - at < 2) {
      if (y == height - 1 && x >= width) break;  // complete, only the end marker is missing
      return truncated();
    }
    const std::uint32_t count = byte_at(bytes, at), value = byte_at(bytes, at + 1);
    at += 2;
    if (count > 0) {
      for (std::uint32_t i = 0; i < count; ++i) put(nibbles ? (i % 2 == 0 ? value >> 4 : value & 15) : value);
    } else if (value == 0) {  // end of line
      x = 0, ++y;
    } else if (value == 1) {  // end of bitmap
      break;
    } else if (value == 2) {  // move
      if (bytes.size() - at < 2) return truncated();
      x += byte_at(bytes, at), y += byte_at(bytes, at + 1);
      at += 2;
    } else {  // `value` indices as they are, padded to 16 bits
      const std::size_t size = nibbles ? (value + 1) / 2 : value, padded = size + size % 2;
      if (bytes.size() - at < size) return truncated();
      for (std::uint32_t i = 0; i < value; ++i) {
        const std::uint32_t byte = byte_at(bytes, at + (nibbles ? i / 2 : i));
        put(nibbles ? (i % 2 == 0 ? byte >> 4 : byte & 15) : byte);
      }
      at = std::min(bytes.size(), at + padded);
    }
  }
  return indices;
}

Result<Image> decode_runs(Bytes bytes, const BmpHeader& header) {
  ASSIGN_OR_RETURN(Image image, Image::create(header.size));
  ASSIGN_OR_RETURN(const std::vector<std::uint8_t> indices, expand_runs(bytes, header));
  const std::uint8_t* from = indices.data();
  for (std::int64_t y = 0; y < image.height(); ++y) {
    std::uint8_t* to = image.row(header.top_down ? y : image.height() - 1 - y);
    for (std::int64_t x = 0; x < image.width(); ++x, to += 3) std::memcpy(to, header.palette[*from++].data(), 3);
  }
  return image;
}

}  // namespace

Result<ImageInfo> probe_bmp(Bytes bytes) {
  ASSIGN_OR_RETURN(const BmpHeader header, read_bmp_size(bytes));
  return ImageInfo{.format = Format::kBmp, .stored = header.size};
}

Result<Image> decode_bmp(Bytes bytes, const ImageInfo&) {
  ASSIGN_OR_RETURN(const BmpHeader header, read_bmp_header(bytes));
  const bool runs = header.compression == BmpCompression::kRle8 || header.compression == BmpCompression::kRle4;
  return runs ? decode_runs(bytes, header) : decode_packed(bytes, header);
}

}  // namespace chiasm::codec
