#include "image/bmp.h"

#include <algorithm>
#include <string>

namespace chiasm::codec {

namespace {

constexpr std::size_t kFileHeader = 14;
constexpr std::uint32_t kCore = 12, kOs2 = 64;  // sizes of BITMAPCOREHEADER and OS22XBITMAPHEADER

tl::unexpected<Error> truncated(Bytes bytes) {
  return fail(Code::kDataLoss, "BMP: truncated: the file ends after {} bytes, inside its headers", bytes.size());
}

Status read_compression(std::uint32_t code, std::uint32_t header_size, BmpHeader& header) {
  const int bits = header.bits;
  const auto mismatch = [&](const char* name, const char* expected) {
    return fail(Code::kDataLoss, "BMP: expected {} bits a pixel with {}, got {}", expected, name, bits);
  };
  if (code == 0) return {};
  if (code == 1) {
    header.compression = BmpCompression::kRle8;
    if (bits != 8) return mismatch("RLE8", "8");
    return {};
  }
  if (code == 2) {
    header.compression = BmpCompression::kRle4;
    if (bits != 4) return mismatch("RLE4", "4");
    return {};
  }
  if ((code == 3 || code == 6) && header_size != kOs2) {
    header.compression = BmpCompression::kBitfields;
    if (bits < 16) return mismatch("bit fields", "16, 24 or 32");
    return {};
  }
  return fail(Code::kUnimplemented, "BMP: expected compression 0 to 3 or 6, got {}", code);
}

}  // namespace

// Microsoft, "Bitmap Storage" and BITMAPV5HEADER.
Result<BmpHeader> read_bmp_size(Bytes bytes) {
  BmpHeader header;
  if (bytes.size() < kFileHeader + 4) return truncated(bytes);
  const std::uint32_t header_size = le32(bytes, 14);
  constexpr std::uint32_t kSizes[] = {kCore, 40, 52, 56, kOs2, 108, 124};
  if (std::find(std::begin(kSizes), std::end(kSizes), header_size) == std::end(kSizes)) {
    return fail(Code::kUnimplemented, "BMP: expected a header of 12, 40, 52, 56, 64, 108 or 124 bytes, got {}",
                header_size);
  }
  if (bytes.size() < kFileHeader + header_size) return truncated(bytes);
  header.pixels_at = le32(bytes, 10);
  if (header_size == kCore) {
    header.size = {le16(bytes, 18), le16(bytes, 20)};
    header.bits = static_cast<int>(le16(bytes, 24));
  } else {
    const std::int64_t height = static_cast<std::int32_t>(le32(bytes, 22));
    header.top_down = height < 0;
    header.size = {static_cast<std::int32_t>(le32(bytes, 18)), height < 0 ? -height : height};
    header.bits = static_cast<int>(le16(bytes, 28));
  }
  const int bits = header.bits;
  if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) {
    return fail(Code::kUnimplemented, "BMP: expected 1, 4, 8, 16, 24 or 32 bits a pixel, got {}", bits);
  }
  if (header_size != kCore) RETURN_IF_ERROR(read_compression(le32(bytes, 30), header_size, header));
  return header;
}

Result<BmpHeader> read_bmp_header(Bytes bytes) {
  ASSIGN_OR_RETURN(BmpHeader header, read_bmp_size(bytes));
  const std::uint32_t header_size = le32(bytes, 14);
  std::size_t at = kFileHeader + header_size;

  if (header.bits == 16) header.masks = {0x7C00, 0x03E0, 0x001F, 0};
  if (header.bits >= 24) header.masks = {0xFF0000, 0xFF00, 0xFF, 0};
  if (header.compression == BmpCompression::kBitfields) {
    // In the header itself, or behind one of 40 bytes: then three masks, or four for compression 6.
    const bool behind = header_size == 40;
    const int masks = behind ? (le32(bytes, 30) == 6 ? 4 : 3) : header_size == 52 ? 3 : 4;
    if (behind && bytes.size() - at < std::size_t{4} * masks) return truncated(bytes);
    for (int i = 0; i < masks; ++i) header.masks[i] = le32(bytes, kFileHeader + 40 + 4 * i);
    if (behind) at += std::size_t{4} * masks;
    for (int i = 0; i < 3; ++i) {
      if (header.masks[i] == 0)
        return fail(Code::kDataLoss, "BMP: expected masks of red, green and blue, got {:08x} {:08x} {:08x}",
                    header.masks[0], header.masks[1], header.masks[2]);
    }
    const std::uint32_t unused = header.bits == 32 ? 0 : ~std::uint32_t{0} << header.bits;
    for (const std::uint32_t mask : header.masks) {
      const std::uint32_t field = mask == 0 ? 0 : mask >> __builtin_ctz(mask);
      if ((mask & unused) != 0 || (field & (field + 1)) != 0) {
        return fail(Code::kDataLoss, "BMP: expected masks of adjacent bits within {} bits, got {:08x}", header.bits,
                    mask);
      }
    }
  }
  if (header.bits <= 8) {
    const std::size_t entry = header_size == kCore ? 3 : 4;
    std::uint64_t colours = header_size == kCore ? 0 : le32(bytes, 46);
    if (colours == 0 || colours > 256) colours = std::uint64_t{1} << header.bits;
    // Some writers name the end of the header as the pixels' place, and mean the end of the palette.
    if (header.pixels_at == at) header.pixels_at += colours * entry;
    // Some shorten the palette without saying so: it cannot reach into the pixels.
    if (header.pixels_at > at) colours = std::min<std::uint64_t>(colours, (header.pixels_at - at) / entry);
    if (bytes.size() - at < colours * entry) return truncated(bytes);
    for (int i = 0; i < 256; ++i) header.palette[i].fill(static_cast<std::uint8_t>(i));  // beyond it: as in Pillow
    for (std::size_t i = 0; i < colours; ++i, at += entry) {
      for (int c = 0; c < 3; ++c) header.palette[i][c] = static_cast<std::uint8_t>(byte_at(bytes, at + 2 - c));
    }
  }
  if (header.pixels_at == 0) header.pixels_at = at;
  return header;
}

}  // namespace chiasm::codec
