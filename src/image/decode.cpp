#include "image/decode.h"

#include <new>
#include <utility>

#include "base/check.h"
#include "image/codec.h"
#include "image/orientation.h"

namespace chiasm {

namespace {

Result<Image> decode_stored(std::span<const std::byte> bytes, const ImageInfo& info) {
  switch (info.format) {
    case Format::kJpeg: return codec::decode_jpeg(bytes, info);
    case Format::kPng: return codec::decode_png(bytes, info);
    case Format::kWebp: return codec::decode_webp(bytes, info);
    case Format::kGif: return codec::decode_gif(bytes, info);
    case Format::kBmp: return codec::decode_bmp(bytes, info);
  }
  return fail(Code::kInternal, "unknown format {}", static_cast<int>(info.format));
}

}  // namespace

Result<Image> decode(std::span<const std::byte> bytes, const DecodeLimits& limits, CodecStats* stats) {
  if (bytes.size() > limits.max_bytes) {
    return fail(Code::kInvalidArgument, "expected a picture file of at most {} bytes, got {}", limits.max_bytes,
                bytes.size());
  }
  ASSIGN_OR_RETURN(const ImageInfo info, codec::probe_any(bytes));
  ASSIGN_OR_RETURN(const std::uint64_t pixels, pixel_count(info.stored));
  if (pixels > limits.max_pixels) {
    return fail(Code::kInvalidArgument, "{}: expected at most {} pixels, the header says {} x {} = {}",
                format_name(info.format), limits.max_pixels, info.stored.width, info.stored.height, pixels);
  }
  if (stats != nullptr) stats->decodes.fetch_add(1, std::memory_order_relaxed);
  try {
    ASSIGN_OR_RETURN(Image image, decode_stored(bytes, info));
    CHECK(image.size() == info.stored);
    return apply_orientation(std::move(image), info.orientation);
  } catch (const std::bad_alloc&) {  // of a codec's buffers
    return fail(Code::kResourceExhausted, "{}: no memory to decode {} x {} pixels", format_name(info.format),
                info.stored.width, info.stored.height);
  }
}

}  // namespace chiasm
