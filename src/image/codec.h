// The codecs behind probe() and decode(): one pair of functions and one file a format. Private to image/.
//
// A probe reads headers with code of our own and opens no library. A decoder is called after the limits were checked
// and returns the picture as stored, of exactly the size that the probe told, on white. Thread contract: pure
// functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "image/image.h"
#include "image/probe.h"

namespace chiasm::codec {

using Bytes = std::span<const std::byte>;

Result<ImageInfo> probe_jpeg(Bytes bytes);
Result<ImageInfo> probe_png(Bytes bytes);
Result<ImageInfo> probe_webp(Bytes bytes);
Result<ImageInfo> probe_gif(Bytes bytes);
Result<ImageInfo> probe_bmp(Bytes bytes);

Result<Image> decode_jpeg(Bytes bytes, const ImageInfo& info);
Result<Image> decode_png(Bytes bytes, const ImageInfo& info);
Result<Image> decode_webp(Bytes bytes, const ImageInfo& info);
Result<Image> decode_gif(Bytes bytes, const ImageInfo& info);
Result<Image> decode_bmp(Bytes bytes, const ImageInfo& info);

// probe() without the counter.
Result<ImageInfo> probe_any(Bytes bytes);

// Unsigned numbers at an offset that the caller has checked.
inline std::uint32_t byte_at(Bytes b, std::size_t i) { return std::to_integer<std::uint32_t>(b[i]); }
inline std::uint32_t le16(Bytes b, std::size_t i) { return byte_at(b, i) | byte_at(b, i + 1) << 8; }
inline std::uint32_t le24(Bytes b, std::size_t i) { return le16(b, i) | byte_at(b, i + 2) << 16; }
inline std::uint32_t le32(Bytes b, std::size_t i) { return le16(b, i) | le16(b, i + 2) << 16; }
inline std::uint32_t be16(Bytes b, std::size_t i) { return byte_at(b, i) << 8 | byte_at(b, i + 1); }
inline std::uint32_t be32(Bytes b, std::size_t i) { return be16(b, i) << 16 | be16(b, i + 2); }

inline bool starts_with(Bytes bytes, std::string_view magic, std::size_t at = 0) {
  if (at > bytes.size() || bytes.size() - at < magic.size()) return false;
  for (std::size_t i = 0; i < magic.size(); ++i) {
    if (byte_at(bytes, at + i) != static_cast<std::uint8_t>(magic[i])) return false;
  }
  return true;
}

// One channel of `alpha` on white, rounded to nearest.
inline std::uint8_t on_white(std::uint32_t channel, std::uint32_t alpha) {
  return static_cast<std::uint8_t>((channel * alpha + 255 * (255 - alpha) + 127) / 255);
}

// `width` pixels R, G, B, A to R, G, B on white.
inline void compose_row(const std::uint8_t* rgba, std::uint8_t* rgb, std::int64_t width) {
  for (std::int64_t x = 0; x < width; ++x, rgba += 4, rgb += 3) {
    for (int c = 0; c < 3; ++c) rgb[c] = on_white(rgba[c], rgba[3]);
  }
}

}  // namespace chiasm::codec
