// GIF through giflib: the first frame on its screen, transparency and whatever the frame leaves bare in white.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include <gif_lib.h>

#include "image/codec.h"

namespace chiasm::codec {

namespace {

struct Reader {
  Bytes bytes;
  std::size_t at = 0;
  bool ended = false;
};

int read_bytes(GifFileType* file, GifByteType* to, int size) {
  auto& reader = *static_cast<Reader*>(file->UserData);
  const std::size_t wanted = size > 0 ? static_cast<std::size_t>(size) : 0;
  const std::size_t part = std::min(wanted, reader.bytes.size() - reader.at);
  if (part > 0) std::memcpy(to, reader.bytes.data() + reader.at, part);
  reader.at += part;
  if (part < wanted) reader.ended = true;
  return static_cast<int>(part);
}

struct CloseFile {
  void operator()(GifFileType* file) const {
    int ignored = 0;
    DGifCloseFile(file, &ignored);
  }
};

tl::unexpected<Error> data_error(const Reader& reader, int code) {
  if (code == D_GIF_ERR_NOT_ENOUGH_MEM) return fail(Code::kResourceExhausted, "GIF: no memory");
  if (reader.ended) {
    return fail(Code::kDataLoss, "GIF: truncated: the file ends after {} bytes, before the picture does",
                reader.bytes.size());
  }
  const char* text = GifErrorString(code);
  return fail(Code::kDataLoss, "GIF: corrupt: {}", text ? text : "the data cannot be decoded");
}

// Goes to the first picture; -1, or the transparent colour that its graphic control extension names.
Result<int> find_picture(GifFileType* file, const Reader& reader) {
  int transparent = NO_TRANSPARENT_COLOR;
  for (;;) {
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    if (DGifGetRecordType(file, &type) == GIF_ERROR) return data_error(reader, file->Error);
    if (type == IMAGE_DESC_RECORD_TYPE) break;
    if (type != EXTENSION_RECORD_TYPE)
      return fail(Code::kDataLoss, "GIF: expected a picture, got the end of the file's blocks");
    int label = 0;
    GifByteType* block = nullptr;
    if (DGifGetExtension(file, &label, &block) == GIF_ERROR) return data_error(reader, file->Error);
    while (block != nullptr) {
      GraphicsControlBlock control{};
      if (label == GRAPHICS_EXT_FUNC_CODE && DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK) {
        transparent = control.TransparentColor;
      }
      if (DGifGetExtensionNext(file, &block) == GIF_ERROR) return data_error(reader, file->Error);
    }
  }
  if (DGifGetImageDesc(file) == GIF_ERROR) return data_error(reader, file->Error);
  return transparent;
}

}  // namespace

// GIF89a, sections 17 to 24: screen, extensions up to the first image descriptor.
Result<ImageInfo> probe_gif(Bytes bytes) {
  ImageInfo info{.format = Format::kGif};
  const auto truncated = [&] {
    return fail(Code::kDataLoss, "GIF: truncated: the file ends after {} bytes, before its first picture",
                bytes.size());
  };
  if (bytes.size() < 13) return truncated();
  info.stored = {le16(bytes, 6), le16(bytes, 8)};
  const std::uint32_t flags = byte_at(bytes, 10);
  std::size_t at = 13 + ((flags & 0x80) ? std::size_t{3} << ((flags & 7) + 1) : 0);
  for (;;) {
    if (at >= bytes.size()) return truncated();
    const std::uint32_t kind = byte_at(bytes, at);
    if (kind == 0x2C) break;
    if (kind != 0x21) return fail(Code::kDataLoss, "GIF: expected a block 21 or 2c at byte {}, got {:02x}", at, kind);
    at += 2;  // and the label
    while (at < bytes.size() && byte_at(bytes, at) != 0) at += byte_at(bytes, at) + 1;
    ++at;
  }
  if (bytes.size() - at < 10) return truncated();
  // A first frame that reaches over the screen makes the screen larger, as Pillow does.
  const ImageSize frame{le16(bytes, at + 5), le16(bytes, at + 7)};
  if (frame.width == 0 || frame.height == 0) {
    return fail(Code::kInvalidArgument, "GIF: expected a frame with sides from 1, got {} x {}", frame.width,
                frame.height);
  }
  info.stored.width = std::max(info.stored.width, le16(bytes, at + 1) + frame.width);
  info.stored.height = std::max(info.stored.height, le16(bytes, at + 3) + frame.height);
  return info;
}

Result<Image> decode_gif(Bytes bytes, const ImageInfo& info) {
  Reader reader{.bytes = bytes};
  int code = 0;
  const std::unique_ptr<GifFileType, CloseFile> file(DGifOpen(&reader, read_bytes, &code));
  if (!file) return data_error(reader, code);
  ASSIGN_OR_RETURN(const int transparent, find_picture(file.get(), reader));

  const GifImageDesc& frame = file->Image;
  const std::int64_t left = frame.Left, top = frame.Top, width = frame.Width, height = frame.Height;
  if (left < 0 || top < 0 || width < 1 || height < 1 || left + width > info.stored.width ||
      top + height > info.stored.height) {
    return fail(Code::kDataLoss, "GIF: expected a frame inside {} x {}, got {} x {} at ({}, {})", info.stored.width,
                info.stored.height, width, height, left, top);
  }
  // An index beyond the palette, or no palette: the gray of that value, as in Pillow.
  std::array<std::array<std::uint8_t, 3>, 256> palette;
  for (int i = 0; i < 256; ++i) palette[i].fill(static_cast<std::uint8_t>(i));
  const ColorMapObject* map = frame.ColorMap != nullptr ? frame.ColorMap : file->SColorMap;
  for (int i = 0; map != nullptr && i < std::min(map->ColorCount, 256); ++i) {
    palette[i] = {map->Colors[i].Red, map->Colors[i].Green, map->Colors[i].Blue};
  }
  if (transparent >= 0 && transparent < 256) palette[transparent].fill(255);

  ASSIGN_OR_RETURN(Image image, Image::create(info.stored));
  if (width != image.width() || height != image.height())
    std::fill(image.pixels().begin(), image.pixels().end(), std::uint8_t{255});
  std::vector<GifPixelType> line(static_cast<std::size_t>(width));
  const auto read_row = [&](std::int64_t y) {
    if (DGifGetLine(file.get(), line.data(), static_cast<int>(width)) == GIF_ERROR) return false;
    std::uint8_t* to = image.row(top + y) + 3 * left;
    for (std::int64_t x = 0; x < width; ++x, to += 3) std::memcpy(to, palette[line[x]].data(), 3);
    return true;
  };
  struct Pass {
    int first, step;
  };
  constexpr Pass kInterlaced[4] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};
  constexpr Pass kPlain[1] = {{0, 1}};
  for (const Pass pass : frame.Interlace ? std::span<const Pass>(kInterlaced) : std::span<const Pass>(kPlain)) {
    for (std::int64_t y = pass.first; y < height; y += pass.step) {
      if (!read_row(y)) return data_error(reader, file->Error);
    }
  }
  return image;
}

}  // namespace chiasm::codec
