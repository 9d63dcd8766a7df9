// From the bytes of a picture file to 8-bit RGB, upright, on white.
//
// Leaves the choice of a target size to models/.../layout and scaling to resize.h. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "image/image.h"
#include "image/probe.h"

namespace chiasm {

struct DecodeLimits {
  std::uint64_t max_pixels = 64'000'000;   // of the picture as stored; checked before a decoder is opened
  std::uint64_t max_bytes = 256ULL << 20;  // of the file
};

// The first frame of JPEG, PNG, WebP, GIF or BMP, turned upright by its EXIF orientation.
//
// Without transparency the result equals Pillow's convert("RGB"), save that 16-bit gray is scaled to 8 bits (its high
// byte, as Pillow does for 16-bit colour) where Pillow clips it. Transparency (alpha channel, PNG tRNS, a GIF's
// transparent colour, canvas that a first frame leaves bare) is composed on white: round((c * a + 255 * (255 - a)) /
// 255). Gamma and colour profiles are not applied.
//
// Errors: those of probe(); kInvalidArgument beyond a limit; kDataLoss for truncated or corrupt data, never a partial
// picture.
Result<Image> decode(std::span<const std::byte> bytes, const DecodeLimits& limits = {}, CodecStats* stats = nullptr);

}  // namespace chiasm
