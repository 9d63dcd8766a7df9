#include "image/image.h"

#include <new>

namespace chiasm {

namespace {
constexpr std::int64_t kMaxSide = (std::int64_t{1} << 31) - 1;
}

Result<std::uint64_t> pixel_count(ImageSize size) {
  if (size.width < 1 || size.height < 1 || size.width > kMaxSide || size.height > kMaxSide) {
    return fail(Code::kInvalidArgument, "expected sides from 1 to {}, got {} x {}", kMaxSide, size.width, size.height);
  }
  return static_cast<std::uint64_t>(size.width) * static_cast<std::uint64_t>(size.height);
}

std::string_view format_name(Format format) {
  switch (format) {
    case Format::kJpeg: return "JPEG";
    case Format::kPng: return "PNG";
    case Format::kWebp: return "WebP";
    case Format::kGif: return "GIF";
    case Format::kBmp: return "BMP";
  }
  return "unknown";
}

Result<Image> Image::create(ImageSize size) {
  ASSIGN_OR_RETURN(const std::uint64_t pixels, pixel_count(size));
  Image image;
  if (pixels > image.pixels_.max_size() / 3) {
    return fail(Code::kResourceExhausted, "a picture of {} x {} does not fit in memory", size.width, size.height);
  }
  try {
    image.pixels_.resize(pixels * 3);
  } catch (const std::bad_alloc&) {
    return fail(Code::kResourceExhausted, "no memory for a picture of {} x {}", size.width, size.height);
  }
  image.size_ = size;
  return image;
}

}  // namespace chiasm
