// The headers of a BMP file, checked. Private to the BMP codec.
#pragma once

#include <array>
#include <cstdint>

#include "base/result.h"
#include "image/codec.h"

namespace chiasm::codec {

enum class BmpCompression : std::uint8_t { kNone, kRle8, kRle4, kBitfields };

struct BmpHeader {
  ImageSize size;
  bool top_down = false;
  int bits = 0;  // a pixel: 1, 4, 8, 16, 24 or 32
  BmpCompression compression = BmpCompression::kNone;
  std::array<std::uint32_t, 4> masks{};                    // R, G, B, A for 16 bits and more; A is 0 without alpha
  std::array<std::array<std::uint8_t, 3>, 256> palette{};  // up to 8 bits
  std::uint64_t pixels_at = 0;                             // offset of the pixel data; may lie behind the file's end
};

// Sizes only from the first 26 bytes for probe(); all of it for the decoder.
Result<BmpHeader> read_bmp_size(Bytes bytes);
Result<BmpHeader> read_bmp_header(Bytes bytes);

}  // namespace chiasm::codec
