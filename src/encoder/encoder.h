// From the bytes of pictures to features: probe, decode, resize, patchify, encode.
//
// Leaves keys and keeping to features/, queueing and batching to encode_service.h. Thread contract: immutable after
// construction; the models, layout and pool it was given must outlive it; every method may be called from several
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "image/decode.h"
#include "models/config.h"
#include "models/layout.h"
#include "models/vision_model.h"

namespace chiasm {

// The files of one picture (one file) or of one video (its frames in order).
using PictureFiles = std::span<const std::span<const std::byte>>;

// How large one picture is looked at, instead of what the preprocessor says.
struct PixelBounds {
  std::optional<std::int64_t> min_pixels, max_pixels;
  bool operator==(const PixelBounds&) const = default;
};

// The configuration with the bounds in force; its digest is the preprocess digest of what is made with it.
// kInvalidArgument unless 1 <= min_pixels <= max_pixels <= 2^40 and one merged patch fits into max_pixels.
Result<PreprocessorConfig> with_bounds(const PreprocessorConfig& config, const PixelBounds& bounds);

struct EncodeTimes {
  double decode_ms = 0, resize_ms = 0, patchify_ms = 0, encode_ms = 0;
  double total_ms() const { return decode_ms + resize_ms + patchify_ms + encode_ms; }
};

struct EncodedPicture {
  Grid grid;
  Matrix rows;  // [grid rows, hidden_size]
  EncodeTimes times;
};

// What a picture will cost, read from its header: nothing is decoded.
struct PicturePlan {
  Size target;  // after resizing
  Grid grid;
  std::int64_t rows = 0;  // features, and tokens of the prompt
};

// Ready for the model.
struct PreparedPicture {
  Grid grid;
  Matrix pixel_values;  // [grid patches, patch_width]
  EncodeTimes times;    // of what was done so far
};

class Encoder {
 public:
  Encoder(const VisionModel& model, const ModelLayout& layout, const PreprocessorConfig& preprocessor,
          ThreadPool& threads, const DecodeLimits& limits = {}, CodecStats* stats = nullptr)
      : model_(model),
        layout_(layout),
        preprocessor_(preprocessor),
        threads_(threads),
        limits_(limits),
        stats_(stats) {}

  // Errors: unreadable headers; kInvalidArgument beyond a limit, for frames of different sizes, for an aspect ratio
  // above 200 and for bounds that with_bounds refuses.
  Result<PicturePlan> plan(PictureFiles files, const PixelBounds& bounds = {}) const;

  // Decodes, resizes and patchifies what plan() was made of.
  Result<PreparedPicture> prepare(PictureFiles files, const PicturePlan& plan) const;

  // All pictures in one pass through the model; each gets the rows that it gets alone, bit for bit, and its share of
  // the pass by patches as encode_ms. Where the pass fails each picture is tried alone, so that one cannot fail others.
  // Memory: a copy of all pixel_values where there are several pictures, and what VisionModel::encode takes for them.
  std::vector<Result<EncodedPicture>> encode_prepared(std::span<const PreparedPicture> pictures) const;

  // One picture from its files to its rows.
  Result<EncodedPicture> encode(PictureFiles files, const PixelBounds& bounds = {}) const;

 private:
  Status check_limits(std::span<const std::byte> file, const ImageInfo& info) const;
  Result<Matrix> pass(ConstMatrixView pixel_values, std::span<const Grid> grids) const;
  Result<EncodedPicture> encode_alone(const PreparedPicture& picture) const;
  Result<std::vector<EncodedPicture>> encode_together(std::span<const PreparedPicture> pictures) const;

  const VisionModel& model_;
  const ModelLayout& layout_;
  const PreprocessorConfig preprocessor_;
  ThreadPool& threads_;
  const DecodeLimits limits_;
  CodecStats* stats_;
};

}  // namespace chiasm
