#include "image/probe.h"

#include <string>

#include "image/codec.h"
#include "image/orientation.h"

namespace chiasm {

namespace codec {

namespace {

Result<ImageInfo> probe_format(Bytes bytes) {
  if (starts_with(bytes, "\xFF\xD8\xFF")) return probe_jpeg(bytes);
  if (starts_with(bytes, "\x89PNG\r\n\x1A\n")) return probe_png(bytes);
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return probe_webp(bytes);
  if (starts_with(bytes, "GIF87a") || starts_with(bytes, "GIF89a")) return probe_gif(bytes);
  if (starts_with(bytes, "BM")) return probe_bmp(bytes);
  if (bytes.empty()) return fail(Code::kDataLoss, "expected a picture, got an empty file");
  std::string start;
  for (std::size_t i = 0; i < bytes.size() && i < 8; ++i)
    start += fmt::format("{}{:02x}", i ? " " : "", byte_at(bytes, i));
  return fail(Code::kUnimplemented, "expected JPEG, PNG, WebP, GIF or BMP, got a file of {} bytes that begins with {}",
              bytes.size(), start);
}

}  // namespace

Result<ImageInfo> probe_any(Bytes bytes) {
  ASSIGN_OR_RETURN(ImageInfo info, probe_format(bytes));
  if (auto pixels = pixel_count(info.stored); !pixels) return fail_in(format_name(info.format), pixels.error());
  info.size = upright_size(info.stored, info.orientation);
  return info;
}

}  // namespace codec

Result<ImageInfo> probe(std::span<const std::byte> bytes, CodecStats* stats) {
  if (stats != nullptr) stats->probes.fetch_add(1, std::memory_order_relaxed);
  return codec::probe_any(bytes);
}

}  // namespace chiasm
