// PNG through libspng, a row at a time. 16-bit samples keep their high byte, as Pillow does for colour.
//
// libspng sees the chunks that make the pixels only (IHDR, PLTE, tRNS, IDAT, IEND): a damaged or enormous profile or
// text is no reason to refuse a picture, and is never unpacked.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include <spng.h>

#include "image/codec.h"
#include "image/orientation.h"

namespace chiasm::codec {

namespace {

constexpr std::size_t kSignature = 8, kChunkFrame = 12;  // length, type and CRC around a chunk's data

// Hands the wanted chunks to libspng.
struct ChunkFilter {
  Bytes bytes;
  std::size_t at = 0, wanted_end = kSignature;
  bool ended = false;  // libspng asked for more than there is

  int read(void* to, std::size_t size) {
    auto* out = static_cast<std::byte*>(to);
    while (size > 0) {
      if (at == wanted_end && !next()) {
        ended = true;
        return SPNG_IO_EOF;
      }
      const std::size_t part = std::min(size, wanted_end - at);
      std::memcpy(out, bytes.data() + at, part);
      at += part, out += part, size -= part;
    }
    return 0;
  }

 private:
  bool next() {
    while (bytes.size() - at >= 8) {
      const std::size_t left = bytes.size() - at;
      const std::size_t size = std::min<std::size_t>(left, std::size_t{be32(bytes, at)} + kChunkFrame);
      for (const std::string_view wanted : {"IHDR", "PLTE", "tRNS", "IDAT", "IEND"}) {
        if (starts_with(bytes, wanted, at + 4)) {
          wanted_end = at + size;
          return true;
        }
      }
      at += size;
    }
    return false;
  }
};

int read_stream(spng_ctx*, void* user, void* to, std::size_t size) {
  return static_cast<ChunkFilter*>(user)->read(to, size);
}

struct FreeContext {
  void operator()(spng_ctx* context) const { spng_ctx_free(context); }
};

tl::unexpected<Error> data_error(const ChunkFilter& filter, int code) {
  if (code == SPNG_EMEM) return fail(Code::kResourceExhausted, "PNG: no memory");
  if (filter.ended) {
    return fail(Code::kDataLoss, "PNG: truncated: the file ends after {} bytes, before the picture does",
                filter.bytes.size());
  }
  return fail(Code::kDataLoss, "PNG: corrupt: {}", spng_strerror(code));
}

}  // namespace

// W3C PNG, sections 5 and 11.2.2; eXIf: PNG 3rd edition, 11.3.4.5.
Result<ImageInfo> probe_png(Bytes bytes) {
  ImageInfo info{.format = Format::kPng};
  if (bytes.size() < kSignature + kChunkFrame + 13) {
    return fail(Code::kDataLoss, "PNG: truncated: the file ends after {} bytes, inside its header", bytes.size());
  }
  if (be32(bytes, 8) != 13 || !starts_with(bytes, "IHDR", 12)) {
    return fail(Code::kDataLoss, "PNG: expected the chunk IHDR of 13 bytes first, got another");
  }
  info.stored = {be32(bytes, 16), be32(bytes, 20)};
  std::size_t at = kSignature;
  while (bytes.size() - at >= kChunkFrame) {
    const std::size_t size = be32(bytes, at);
    if (bytes.size() - at - kChunkFrame < size) break;  // the decoder tells whether pixels are missing
    if (starts_with(bytes, "eXIf", at + 4)) {
      info.orientation = exif_orientation(bytes.subspan(at + 8, size)).value_or(1);
      break;
    }
    if (starts_with(bytes, "IEND", at + 4)) break;
    at += kChunkFrame + size;
  }
  return info;
}

Result<Image> decode_png(Bytes bytes, const ImageInfo& info) {
  const std::unique_ptr<spng_ctx, FreeContext> context(spng_ctx_new(0));
  if (!context) return fail(Code::kResourceExhausted, "PNG: no memory");
  ChunkFilter filter{.bytes = bytes};
  spng_set_crc_action(context.get(), SPNG_CRC_ERROR, SPNG_CRC_ERROR);
  if (const int code = spng_set_png_stream(context.get(), read_stream, &filter)) return data_error(filter, code);
  spng_ihdr header{};
  if (const int code = spng_get_ihdr(context.get(), &header)) return data_error(filter, code);
  spng_trns transparency{};
  const int has_transparency = spng_get_trns(context.get(), &transparency);
  if (has_transparency != 0 && has_transparency != SPNG_ECHUNKAVAIL) return data_error(filter, has_transparency);

  const bool alpha = (header.color_type & 4) != 0 || has_transparency == 0;
  const bool interlaced = header.interlace_method != 0;
  const int format = alpha ? SPNG_FMT_RGBA8 : SPNG_FMT_RGB8;
  const int flags = SPNG_DECODE_PROGRESSIVE | (alpha ? SPNG_DECODE_TRNS : 0);
  if (const int code = spng_decode_image(context.get(), nullptr, 0, format, flags)) return data_error(filter, code);

  ASSIGN_OR_RETURN(Image image, Image::create(info.stored));
  // With alpha a row passes through here; an interlaced picture comes in seven passes and needs all of it.
  const std::size_t rgba_row = alpha ? static_cast<std::size_t>(image.width()) * 4 : 0;
  std::vector<std::uint8_t> rgba(rgba_row * (interlaced ? static_cast<std::size_t>(image.height()) : 1));
  int code = 0;
  while (code == 0) {
    spng_row_info row{};
    if (code = spng_get_row_info(context.get(), &row); code != 0) break;
    if (!alpha) {
      code = spng_decode_row(context.get(), image.row(row.row_num), image.row_bytes());
    } else if (interlaced) {
      code = spng_decode_row(context.get(), rgba.data() + rgba_row * row.row_num, rgba_row);
    } else {
      code = spng_decode_row(context.get(), rgba.data(), rgba_row);
      if (code == 0 || code == SPNG_EOI) compose_row(rgba.data(), image.row(row.row_num), image.width());
    }
  }
  if (code != SPNG_EOI) return data_error(filter, code);
  // The last checksum lies behind the pixels. A file that ends there has lost no pixel.
  code = spng_decode_chunks(context.get());
  if (code != 0 && !filter.ended) return data_error(filter, code);
  if (alpha && interlaced) {
    for (std::int64_t y = 0; y < image.height(); ++y) {
      compose_row(rgba.data() + rgba_row * static_cast<std::size_t>(y), image.row(y), image.width());
    }
  }
  return image;
}

}  // namespace chiasm::codec
