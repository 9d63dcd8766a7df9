// JPEG through libjpeg-turbo, with the settings Pillow uses: slow integer DCT, fancy upsampling.
//
// libjpeg reports errors by longjmp. Every function that calls setjmp here holds no object with a destructor, and all
// memory is owned one level up, so that a jump skips nothing.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include <jpeglib.h>
// jerror.h needs the types of jpeglib.h
#include <jerror.h>

#include "image/codec.h"
#include "image/orientation.h"

namespace chiasm::codec {

namespace {

// A file of more scans than this is made to burn time: a progressive file has about ten.
constexpr int kMaxScans = 100;

struct Session {
  jpeg_decompress_struct decoder{};
  jpeg_error_mgr errors{};
  jpeg_source_mgr source{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  bool created = false;
  bool end_may_be_missing = false;  // pixels may be complete though the file's end marker is not there
  bool at_end = false;              // the decoder asked for bytes behind the file's end
  char message[JMSG_LENGTH_MAX] = {};

  ~Session() {
    if (created) jpeg_destroy_decompress(&decoder);
  }
};

Session& session_of(j_common_ptr common) { return *static_cast<Session*>(common->client_data); }

[[noreturn]] void stop(j_common_ptr common) {
  Session& session = session_of(common);
  common->err->format_message(common, session.message);
  std::longjmp(session.jump, 1);
}

// Warnings that mean lost pixels stop the decoder; others (stray bytes, odd version numbers) are harmless.
void on_message(j_common_ptr common, int level) {
  if (level >= 0) return;
  switch (common->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC: stop(common);
    default: return;
  }
}

void on_progress(j_common_ptr common) {
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(common);
  if (decoder->input_scan_number <= kMaxScans) return;
  std::snprintf(session_of(common).message, JMSG_LENGTH_MAX, "more than %d scans", kMaxScans);
  std::longjmp(session_of(common).jump, 1);
}

boolean on_buffer_empty(j_decompress_ptr decoder) {
  auto* common = reinterpret_cast<j_common_ptr>(decoder);
  Session& session = session_of(common);
  session.at_end = true;
  if (!session.end_may_be_missing) {
    std::snprintf(session.message, JMSG_LENGTH_MAX, "the file ends early");
    std::longjmp(session.jump, 1);
  }
  // An end marker in place of the missing one. If pixels are missing too, the entropy decoder warns and we stop.
  static const JOCTET kEnd[2] = {0xFF, JPEG_EOI};
  session.source.next_input_byte = kEnd;
  session.source.bytes_in_buffer = sizeof kEnd;
  return TRUE;
}

void on_skip(j_decompress_ptr decoder, long count) {
  if (count <= 0) return;
  jpeg_source_mgr& source = *decoder->src;
  if (static_cast<unsigned long>(count) > source.bytes_in_buffer) {
    source.bytes_in_buffer = 0;
    return;  // the next read finds the end
  }
  source.next_input_byte += count;
  source.bytes_in_buffer -= static_cast<std::size_t>(count);
}

bool read_header(Session& session, Bytes bytes) {
  if (setjmp(session.jump)) return false;
  session.decoder.err = jpeg_std_error(&session.errors);
  session.errors.error_exit = stop;
  session.errors.emit_message = on_message;
  session.decoder.client_data = &session;
  jpeg_create_decompress(&session.decoder);
  session.created = true;
  session.source.next_input_byte = reinterpret_cast<const JOCTET*>(bytes.data());
  session.source.bytes_in_buffer = bytes.size();
  session.source.init_source = [](j_decompress_ptr) {};
  session.source.fill_input_buffer = on_buffer_empty;
  session.source.skip_input_data = on_skip;
  session.source.resync_to_restart = jpeg_resync_to_restart;
  session.source.term_source = [](j_decompress_ptr) {};
  session.decoder.src = &session.source;
  session.progress.progress_monitor = on_progress;
  session.decoder.progress = &session.progress;
  jpeg_read_header(&session.decoder, TRUE);
  return true;
}

// `row` has room for one row of the decoder's components.
bool read_rows(Session& session, Image& image, JSAMPLE* row) {
  if (setjmp(session.jump)) return false;
  jpeg_decompress_struct& decoder = session.decoder;
  // Several scans, or arithmetic coding, give no warning when data is missing at the end.
  session.end_may_be_missing = !jpeg_has_multiple_scans(&decoder) && !decoder.arith_code;
  decoder.out_color_space = decoder.num_components == 1   ? JCS_GRAYSCALE
                            : decoder.num_components == 3 ? JCS_RGB
                                                          : JCS_CMYK;
  decoder.dct_method = JDCT_ISLOW;
  decoder.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&decoder);
  while (decoder.output_scanline < decoder.output_height) {
    std::uint8_t* out = image.row(decoder.output_scanline);
    if (decoder.num_components == 3) {
      JSAMPROW rows[1] = {out};
      jpeg_read_scanlines(&decoder, rows, 1);
      continue;
    }
    JSAMPROW rows[1] = {row};
    jpeg_read_scanlines(&decoder, rows, 1);
    if (decoder.num_components == 1) {
      for (std::int64_t x = 0; x < image.width(); ++x) std::memset(out + 3 * x, row[x], 3);
    } else {
      // Stored inverted, as Adobe does; Pillow takes every CMYK file so. Its arithmetic: k - round((255 - c) * k /
      // 255).
      for (std::int64_t x = 0; x < image.width(); ++x) {
        const std::uint32_t k = row[4 * x + 3];
        for (int c = 0; c < 3; ++c) {
          const std::uint32_t ink = ((255 - row[4 * x + c]) * k + 127) / 255;
          out[3 * x + c] = static_cast<std::uint8_t>(k - ink);
        }
      }
    }
  }
  return true;
}

tl::unexpected<Error> data_error(const Session& session, std::size_t size) {
  if (session.at_end)
    return fail(Code::kDataLoss, "JPEG: truncated: the file ends after {} bytes, before the picture does", size);
  return fail(Code::kDataLoss, "JPEG: corrupt or of an unsupported kind: {}",
              static_cast<const char*>(session.message));
}

}  // namespace

// ITU T.81, annex B: markers up to the first scan.
Result<ImageInfo> probe_jpeg(Bytes bytes) {
  ImageInfo info{.format = Format::kJpeg};
  bool has_frame = false, has_orientation = false;
  const auto truncated = [&] {
    return fail(Code::kDataLoss, "JPEG: truncated: the file ends after {} bytes, inside its headers", bytes.size());
  };
  std::size_t at = 2;
  for (;;) {
    while (at < bytes.size() && byte_at(bytes, at) != 0xFF) ++at;  // stray bytes, as libjpeg skips them
    while (at < bytes.size() && byte_at(bytes, at) == 0xFF) ++at;  // fill bytes
    if (at >= bytes.size()) return truncated();
    const std::uint32_t marker = byte_at(bytes, at++);
    constexpr std::uint32_t kTem = 0x01, kRst0 = 0xD0, kSoi = 0xD8, kEoi = 0xD9, kSos = 0xDA, kApp1 = 0xE1;
    if (marker == 0 || marker == kTem || (marker >= kRst0 && marker <= kSoi)) continue;
    if (marker == kEoi) return fail(Code::kDataLoss, "JPEG: expected a scan, got the end marker at byte {}", at - 2);
    if (marker == kSos) break;
    if (bytes.size() - at < 2) return truncated();
    const std::size_t length = be16(bytes, at);
    if (length < 2)
      return fail(Code::kDataLoss, "JPEG: expected a segment of at least 2 bytes at {}, got {}", at, length);
    if (bytes.size() - at < length) return truncated();
    const Bytes body = bytes.subspan(at + 2, length - 2);
    at += length;
    if (marker == kApp1 && !has_orientation && starts_with(body, std::string_view("Exif\0\0", 6))) {
      if (const auto orientation = exif_orientation(body)) {
        info.orientation = *orientation;
        has_orientation = true;
      }
    }
    constexpr std::uint32_t kDht = 0xC4, kJpg = 0xC8, kDac = 0xCC;
    if (has_frame || marker < 0xC0 || marker > 0xCF || marker == kDht || marker == kJpg || marker == kDac) continue;
    if (body.size() < 6) return fail(Code::kDataLoss, "JPEG: expected a frame header of 6 bytes, got {}", body.size());
    const std::uint32_t bits = byte_at(body, 0), components = byte_at(body, 5);
    if (bits != 8) return fail(Code::kUnimplemented, "JPEG: expected 8 bits a sample, got {}", bits);
    if (components != 1 && components != 3 && components != 4) {
      return fail(Code::kUnimplemented, "JPEG: expected 1, 3 or 4 components, got {}", components);
    }
    info.stored = {be16(body, 3), be16(body, 1)};
    has_frame = true;
  }
  if (!has_frame) return fail(Code::kDataLoss, "JPEG: expected a frame header before the first scan, got none");
  return info;
}

Result<Image> decode_jpeg(Bytes bytes, const ImageInfo& info) {
  Session session;
  if (!read_header(session, bytes)) return data_error(session, bytes.size());
  const jpeg_decompress_struct& decoder = session.decoder;
  const ImageSize size{decoder.image_width, decoder.image_height};
  const int components = decoder.num_components;
  if (size != info.stored || (components != 1 && components != 3 && components != 4)) {
    return fail(Code::kDataLoss, "JPEG: expected one frame of {} x {}, got another of {} x {} with {} components",
                info.stored.width, info.stored.height, size.width, size.height, components);
  }
  ASSIGN_OR_RETURN(Image image, Image::create(size));
  std::vector<JSAMPLE> row(components == 3 ? 0 : static_cast<std::size_t>(size.width) * components);
  if (!read_rows(session, image, row.data())) return data_error(session, bytes.size());
  return image;
}

}  // namespace chiasm::codec
