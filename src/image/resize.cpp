#include "image/resize.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <new>
#include <utility>
#include <vector>

#include "image/resize_rows.h"
#include "image/resize_weights.h"

namespace chiasm {

namespace {

using resample::SplitWeights;

constexpr std::int64_t kRowsPerTask = 16;

int threads_of(const ThreadPool* pool) { return pool == nullptr ? 1 : pool->size(); }

// Calls task(first row, end row, thread) for slices of `rows`. Tasks allocate nothing: no exception may leave a thread.
void for_rows(ThreadPool* pool, std::int64_t rows, const std::function<void(std::int64_t, std::int64_t, int)>& task) {
  if (pool == nullptr) return task(0, rows, 0);
  pool->parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t i, int thread) {
    task(i * kRowsPerTask, std::min(rows, (i + 1) * kRowsPerTask), thread);
  });
}

SplitWeights weights_for(std::int64_t in, std::int64_t out) {
  return resample::split_weights(resample::bicubic_weights(in, out, resample::kTapGroup));
}

Result<Image> resize_width(const Image& image, std::int64_t width, ThreadPool* pool) {
  ASSIGN_OR_RETURN(Image out, Image::create({width, image.height()}));
  const SplitWeights weights = weights_for(image.width(), width);
  // Unused taps read, and multiply by 0, what lies behind a row's end.
  const std::size_t padded = image.row_bytes() + static_cast<std::size_t>(3 * weights.taps + resample::kRowPadding);
  std::vector<std::uint8_t> scratch(padded * static_cast<std::size_t>(threads_of(pool)));
  for_rows(pool, image.height(), [&](std::int64_t begin, std::int64_t end, int thread) {
    std::uint8_t* row = scratch.data() + padded * static_cast<std::size_t>(thread);
    for (std::int64_t y = begin; y < end; ++y) {
      std::memcpy(row, image.row(y), image.row_bytes());
      resample::horizontal_row(row, weights, width, out.row(y));
    }
  });
  return out;
}

Result<Image> resize_height(const Image& image, std::int64_t height, ThreadPool* pool) {
  ASSIGN_OR_RETURN(Image out, Image::create({image.width(), height}));
  const SplitWeights weights = weights_for(image.height(), height);
  std::vector<const std::uint8_t*> scratch(static_cast<std::size_t>(weights.taps * threads_of(pool)));
  for_rows(pool, height, [&](std::int64_t begin, std::int64_t end, int thread) {
    const std::uint8_t** rows = scratch.data() + weights.taps * thread;
    for (std::int64_t y = begin; y < end; ++y) {
      for (std::int64_t t = 0; t < weights.taps; ++t) {
        rows[t] = image.row(std::min(weights.first[y] + t, image.height() - 1));
      }
      resample::vertical_row(rows, weights.of(y), weights.taps, static_cast<std::int64_t>(image.row_bytes()),
                             out.row(y));
    }
  });
  return out;
}

}  // namespace

Result<Image> resize_bicubic(const Image& image, ImageSize target, ThreadPool* pool) {
  RETURN_IF_ERROR(pixel_count(target));
  RETURN_IF_ERROR(pixel_count(image.size()));
  try {
    if (target.width == image.width() && target.height == image.height()) return image;
    if (target.height == image.height()) return resize_width(image, target.width, pool);
    if (target.width == image.width()) return resize_height(image, target.height, pool);
    if (resample::vertical_first(image.size(), target)) {
      ASSIGN_OR_RETURN(const Image between, resize_height(image, target.height, pool));
      return resize_width(between, target.width, pool);
    }
    ASSIGN_OR_RETURN(const Image between, resize_width(image, target.width, pool));
    return resize_height(between, target.height, pool);
  } catch (const std::bad_alloc&) {
    return fail(Code::kResourceExhausted, "no memory to scale {} x {} to {} x {}", image.width(), image.height(),
                target.width, target.height);
  }
}

}  // namespace chiasm
