// What the fuzz targets of the picture formats share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "expect.h"
#include "image/decode.h"
#include "image/probe.h"

namespace chiasm::fuzz {

// Reads the headers and the pixels; what both say must agree. Only files of `format` are worth the time.
inline int try_picture(const std::uint8_t* data, std::size_t size, Format format) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto info = probe(bytes);
  if (info && info->format != format) return -1;  // keep it out of the corpus
  const DecodeLimits limits{.max_pixels = 1 << 20, .max_bytes = 1 << 20};
  const auto image = decode(bytes, limits);
  if (image) expect(info && image->size() == info->size);
  if (!image) expect(!image.error().message.empty());
  return 0;
}

}  // namespace chiasm::fuzz
