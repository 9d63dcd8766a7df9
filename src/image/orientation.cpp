#include "image/orientation.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "image/codec.h"

namespace chiasm {

std::optional<int> exif_orientation(std::span<const std::byte> block) {
  using codec::starts_with;
  if (starts_with(block, std::string_view("Exif\0\0", 6))) block = block.subspan(6);
  if (block.size() < 8) return std::nullopt;
  const bool little = starts_with(block, "II");
  if (!little && !starts_with(block, "MM")) return std::nullopt;
  const auto u16 = [&](std::size_t i) { return little ? codec::le16(block, i) : codec::be16(block, i); };
  const auto u32 = [&](std::size_t i) { return little ? codec::le32(block, i) : codec::be32(block, i); };
  if (u16(2) != 42) return std::nullopt;
  const std::size_t directory = u32(4);
  if (directory > block.size() || block.size() - directory < 2) return std::nullopt;
  const std::size_t entries = std::min<std::size_t>(u16(directory), (block.size() - directory - 2) / 12);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (u16(entry) != 0x0112) continue;
    constexpr std::uint32_t kShort = 3, kLong = 4;
    const std::uint32_t type = u16(entry + 2);
    if (u32(entry + 4) != 1 || (type != kShort && type != kLong)) return std::nullopt;
    const std::uint32_t value = type == kShort ? u16(entry + 8) : u32(entry + 8);
    if (value < 1 || value > 8) return std::nullopt;
    return static_cast<int>(value);
  }
  return std::nullopt;
}

ImageSize upright_size(ImageSize stored, int orientation) {
  return orientation >= 5 ? ImageSize{stored.height, stored.width} : stored;
}

Result<Image> apply_orientation(Image image, int orientation) {
  if (orientation < 1 || orientation > 8) {
    return fail(Code::kInvalidArgument, "expected an orientation from 1 to 8, got {}", orientation);
  }
  if (orientation == 1) return image;
  const std::int64_t w = image.width(), h = image.height();
  ASSIGN_OR_RETURN(Image out, Image::create(upright_size(image.size(), orientation)));

  // Pixel (x, y) of the result is stored at origin + x * step_x + y * step_y, in pixels.
  struct Walk {
    std::int64_t origin, step_x, step_y;
  };
  const std::int64_t right = w - 1, bottom = (h - 1) * w;
  const Walk walks[9] = {
      {},
      {},
      {right, -1, w},
      {right + bottom, -1, -w},
      {bottom, 1, -w},
      {0, w, 1},
      {bottom, -w, 1},
      {right + bottom, -w, -1},
      {right, w, -1},
  };
  const Walk walk = walks[orientation];
  const std::uint8_t* const from = image.pixels().data();
  // Blocks keep both pictures in cache when rows become columns.
  constexpr std::int64_t kBlock = 32;
  for (std::int64_t y0 = 0; y0 < out.height(); y0 += kBlock) {
    const std::int64_t y1 = std::min(y0 + kBlock, out.height());
    for (std::int64_t x0 = 0; x0 < out.width(); x0 += kBlock) {
      const std::int64_t x1 = std::min(x0 + kBlock, out.width());
      for (std::int64_t y = y0; y < y1; ++y) {
        std::uint8_t* to = out.row(y) + 3 * x0;
        for (std::int64_t x = x0; x < x1; ++x, to += 3) {
          std::memcpy(to, from + 3 * (walk.origin + x * walk.step_x + y * walk.step_y), 3);
        }
      }
    }
  }
  return out;
}

}  // namespace chiasm
