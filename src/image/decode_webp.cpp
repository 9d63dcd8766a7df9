// WebP through libwebp: lossy, lossless, with alpha, and the first frame of an animation.
//
// The container (RIFF, VP8X, ANMF) is walked here, so that the demultiplexer library is not needed.
#include <algorithm>
#include <vector>

#include <webp/decode.h>

#include "image/codec.h"
#include "image/orientation.h"

namespace chiasm::codec {

namespace {

constexpr std::size_t kRiffHeader = 12, kChunkHeader = 8, kFrameHeader = 16;

struct Frame {
  Bytes data;  // what libwebp takes: the whole file, or the chunks of one frame
  std::int64_t x = 0, y = 0;
  ImageSize size;
};

struct Chunk {
  Bytes body;  // cut where the file ends
  std::size_t next;
  bool whole;
};

Chunk chunk_at(Bytes bytes, std::size_t at) {
  const std::size_t size = le32(bytes, at + 4), left = bytes.size() - at - kChunkHeader;
  const bool whole = size <= left;
  const std::size_t used = whole ? size : left;
  return {bytes.subspan(at + kChunkHeader, used), std::min(bytes.size(), at + kChunkHeader + used + (used & 1)), whole};
}

tl::unexpected<Error> truncated(Bytes bytes) {
  return fail(Code::kDataLoss, "WebP: truncated: the header says {} bytes, the file has {}",
              std::uint64_t{le32(bytes, 4)} + 8, bytes.size());
}

// The size in a VP8 (RFC 6386, 9.1) or VP8L (WebP lossless, section 3) bitstream header.
Result<ImageSize> bitstream_size(Bytes bytes, const Chunk& chunk, bool lossless) {
  const Bytes body = chunk.body;
  if (body.size() < (lossless ? 5 : 10)) return truncated(bytes);
  if (lossless) {
    if (byte_at(body, 0) != 0x2F)
      return fail(Code::kDataLoss, "WebP: expected the lossless signature 2f, got {:02x}", byte_at(body, 0));
    const std::uint32_t packed = le32(body, 1);
    return ImageSize{(packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1};
  }
  if (!starts_with(body, "\x9D\x01\x2A", 3))
    return fail(Code::kDataLoss, "WebP: expected a key frame, got another start code");
  return ImageSize{le16(body, 6) & 0x3FFF, le16(body, 8) & 0x3FFF};
}

// The first frame of an animation (WebP container specification, "Animation").
Result<Frame> first_frame(Bytes bytes, const ImageInfo& info) {
  Frame frame{.data = bytes, .size = info.stored};
  if (!starts_with(bytes, "VP8X", kRiffHeader)) return frame;
  constexpr std::uint32_t kAnimated = 0x02;
  if ((byte_at(bytes, kRiffHeader + kChunkHeader) & kAnimated) == 0) return frame;
  for (std::size_t at = kRiffHeader; bytes.size() - at >= kChunkHeader;) {
    const Chunk chunk = chunk_at(bytes, at);
    if (starts_with(bytes, "ANMF", at)) {
      if (chunk.body.size() < kFrameHeader) return truncated(bytes);
      frame.x = std::int64_t{le24(chunk.body, 0)} * 2, frame.y = std::int64_t{le24(chunk.body, 3)} * 2;
      frame.size = {std::int64_t{le24(chunk.body, 6)} + 1, std::int64_t{le24(chunk.body, 9)} + 1};
      frame.data = chunk.body.subspan(kFrameHeader);
      if (frame.x + frame.size.width > info.stored.width || frame.y + frame.size.height > info.stored.height) {
        return fail(Code::kDataLoss, "WebP: expected a frame inside the canvas of {} x {}, got {} x {} at ({}, {})",
                    info.stored.width, info.stored.height, frame.size.width, frame.size.height, frame.x, frame.y);
      }
      return frame;
    }
    at = chunk.next;
  }
  if (std::uint64_t{le32(bytes, 4)} + 8 > bytes.size()) return truncated(bytes);
  return fail(Code::kDataLoss, "WebP: expected a frame in the animation, got none");
}

tl::unexpected<Error> data_error(Bytes bytes, VP8StatusCode status) {
  if (status == VP8_STATUS_OUT_OF_MEMORY) return fail(Code::kResourceExhausted, "WebP: no memory");
  if (std::uint64_t{le32(bytes, 4)} + 8 > bytes.size()) return truncated(bytes);
  const char* what = "the bitstream cannot be decoded";
  if (status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED) what = "data is missing";
  if (status == VP8_STATUS_UNSUPPORTED_FEATURE) what = "it uses a feature that WebP does not have";
  return fail(Code::kDataLoss, "WebP: corrupt: {}", what);
}

}  // namespace

// WebP container specification (RIFF).
Result<ImageInfo> probe_webp(Bytes bytes) {
  ImageInfo info{.format = Format::kWebp};
  if (bytes.size() < kRiffHeader + kChunkHeader) return truncated(bytes);
  const Chunk first = chunk_at(bytes, kRiffHeader);
  if (starts_with(bytes, "VP8X", kRiffHeader)) {
    if (first.body.size() < 10) {
      return first.whole ? fail(Code::kDataLoss, "WebP: expected a VP8X chunk of 10 bytes, got {}", first.body.size())
                         : truncated(bytes);
    }
    info.stored = {std::int64_t{le24(first.body, 4)} + 1, std::int64_t{le24(first.body, 7)} + 1};
    for (std::size_t at = first.next; bytes.size() - at >= kChunkHeader;) {
      const Chunk chunk = chunk_at(bytes, at);
      if (starts_with(bytes, "EXIF", at)) {
        info.orientation = exif_orientation(chunk.body).value_or(1);
        break;
      }
      at = chunk.next;
    }
    return info;
  }
  const bool lossless = starts_with(bytes, "VP8L", kRiffHeader);
  if (!lossless && !starts_with(bytes, "VP8 ", kRiffHeader)) {
    return fail(Code::kDataLoss, "WebP: expected the chunk 'VP8 ', 'VP8L' or 'VP8X' first, got another");
  }
  ASSIGN_OR_RETURN(info.stored, bitstream_size(bytes, first, lossless));
  return info;
}

Result<Image> decode_webp(Bytes bytes, const ImageInfo& info) {
  ASSIGN_OR_RETURN(const Frame frame, first_frame(bytes, info));
  const auto* data = reinterpret_cast<const std::uint8_t*>(frame.data.data());
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) return fail(Code::kInternal, "WebP: the library is of another version");
  if (const auto status = WebPGetFeatures(data, frame.data.size(), &config.input)) return data_error(bytes, status);
  const ImageSize size{config.input.width, config.input.height};
  if (size != frame.size) {
    return fail(Code::kDataLoss, "WebP: expected a bitstream of {} x {}, got {} x {}", frame.size.width,
                frame.size.height, size.width, size.height);
  }
  if (config.input.has_animation)
    return fail(Code::kDataLoss, "WebP: expected one picture in a frame, got an animation");

  ASSIGN_OR_RETURN(Image image, Image::create(info.stored));
  const bool alpha = config.input.has_alpha != 0, covers = size == info.stored;
  const std::size_t depth = alpha ? 4 : 3, stride = static_cast<std::size_t>(size.width) * depth;
  std::vector<std::uint8_t> buffer(alpha || !covers ? stride * static_cast<std::size_t>(size.height) : 0);
  config.output.colorspace = alpha ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = buffer.empty() ? image.pixels().data() : buffer.data();
  config.output.u.RGBA.stride = static_cast<int>(stride);
  config.output.u.RGBA.size = stride * static_cast<std::size_t>(size.height);
  const VP8StatusCode status = WebPDecode(data, frame.data.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) return data_error(bytes, status);
  if (buffer.empty()) return image;

  if (!covers) std::fill(image.pixels().begin(), image.pixels().end(), std::uint8_t{255});
  for (std::int64_t y = 0; y < size.height; ++y) {
    const std::uint8_t* from = buffer.data() + stride * static_cast<std::size_t>(y);
    std::uint8_t* to = image.row(frame.y + y) + 3 * frame.x;
    if (alpha) {
      compose_row(from, to, size.width);
    } else {
      std::copy(from, from + stride, to);
    }
  }
  return image;
}

}  // namespace chiasm::codec
