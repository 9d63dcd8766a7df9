// From the bytes of pictures to features: probe, decode, resize, patchify, encode.
//
// Leaves keys and keeping to features/. Thread contract: immutable after construction; the models, layout and pool it
// was given must outlive it; encode may be called from several threads.
#pragma once

#include <cstddef>
#include <cstdint>
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

  // Errors: unreadable headers, beyond a limit, frames of different sizes, an aspect ratio above 200.
  Result<PicturePlan> plan(PictureFiles files) const;

  Result<EncodedPicture> encode(PictureFiles files) const;

  // Several pictures in one pass through the model; each gets the rows that it gets alone, bit for bit. One bad picture
  // fails the call: plan() them first. encode_ms of each is the pass's share by patches.
  Result<std::vector<EncodedPicture>> encode_batch(std::span<const PictureFiles> pictures) const;

 private:
  Result<Matrix> pixel_values(PictureFiles files, const PicturePlan& plan, EncodeTimes& times) const;

  const VisionModel& model_;
  const ModelLayout& layout_;
  const PreprocessorConfig preprocessor_;
  ThreadPool& threads_;
  const DecodeLimits limits_;
  CodecStats* stats_;
};

}  // namespace chiasm
