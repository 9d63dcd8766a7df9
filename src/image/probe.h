// What a picture file says about itself in its headers. No pixel is decoded and no memory is allocated by sizes from
// the file.
//
// Leaves the decoding to decode.h. Thread contract: pure functions; CodecStats may be shared by threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "image/image.h"

namespace chiasm {

struct ImageInfo {
  Format format = Format::kJpeg;
  ImageSize stored;     // as in the file
  int orientation = 1;  // 1..8 as EXIF tag 0x0112; 1 when absent or unreadable
  ImageSize size;       // after the orientation is applied: what decode() returns
};

// Counts the files that were opened, for metrics and for the test that a feature cache hit opens no decoder.
struct CodecStats {
  std::atomic<std::int64_t> probes = 0;   // headers read by probe()
  std::atomic<std::int64_t> decodes = 0;  // decoders opened by decode()
};

// The format is told by magic bytes only. Orientation comes from EXIF: JPEG APP1, PNG eXIf, WebP EXIF chunk (Exif 2.3).
// GIF: the first frame's canvas. Errors: kUnimplemented for an unknown format or a variant we do not read (12-bit
// JPEG); kDataLoss when the file ends inside its headers or they contradict themselves; kInvalidArgument for a side of
// 0.
Result<ImageInfo> probe(std::span<const std::byte> bytes, CodecStats* stats = nullptr);

}  // namespace chiasm
