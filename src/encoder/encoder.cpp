#include "encoder/encoder.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/check.h"
#include "base/stopwatch.h"
#include "image/patchify.h"
#include "image/probe.h"
#include "image/resize.h"

namespace chiasm {
namespace {

constexpr std::int64_t kMaxPixels = std::int64_t{1} << 40;  // as far as a configuration file may go

PatchifyOptions patchify_options(const PreprocessorConfig& config) {
  return {config.patch_size, config.temporal_patch_size, config.merge_size, config.image_mean, config.image_std};
}

// Of a video, the error says which frame; frames count from 1.
tl::unexpected<Error> in_frame(std::size_t i, PictureFiles files, const Error& error) {
  if (files.size() == 1) return tl::unexpected(error);
  return fail_in(fmt::format("frame {} of {}", i + 1, files.size()), error);
}

}  // namespace

Result<PreprocessorConfig> with_bounds(const PreprocessorConfig& config, const PixelBounds& bounds) {
  PreprocessorConfig out = config;
  out.min_pixels = bounds.min_pixels.value_or(config.min_pixels);
  out.max_pixels = bounds.max_pixels.value_or(config.max_pixels);
  if (out.min_pixels < 1 || out.min_pixels > out.max_pixels || out.max_pixels > kMaxPixels)
    return fail(Code::kInvalidArgument, "expected 1 <= min_pixels <= max_pixels <= 2^40, got {}{} and {}{}",
                out.min_pixels, bounds.min_pixels ? "" : " (the model's)", out.max_pixels,
                bounds.max_pixels ? "" : " (the model's)");
  const std::int64_t factor = config.patch_size * config.merge_size;
  if (out.max_pixels < factor * factor)
    return fail(Code::kInvalidArgument, "expected max_pixels with room for one merged patch, {} pixels, got {}",
                factor * factor, out.max_pixels);
  return out;
}

Status Encoder::check_limits(std::span<const std::byte> file, const ImageInfo& info) const {
  if (file.size() > limits_.max_bytes)
    return fail(Code::kInvalidArgument, "expected a picture file of at most {} bytes, got {}", limits_.max_bytes,
                file.size());
  ASSIGN_OR_RETURN(const std::uint64_t pixels, pixel_count(info.stored));
  if (pixels > limits_.max_pixels)
    return fail(Code::kInvalidArgument, "{}: expected at most {} pixels, the header says {} x {} = {}",
                format_name(info.format), limits_.max_pixels, info.stored.width, info.stored.height, pixels);
  return {};
}

Result<PicturePlan> Encoder::plan(PictureFiles files, const PixelBounds& bounds) const {
  if (files.empty()) return fail(Code::kInvalidArgument, "expected a picture or the frames of a video, got no file");
  ASSIGN_OR_RETURN(const PreprocessorConfig config, with_bounds(preprocessor_, bounds));
  ImageSize size;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const Result<ImageInfo> probed = probe(files[i], stats_);
    if (!probed) return in_frame(i, files, probed.error());
    const ImageInfo& info = *probed;
    if (const Status within = check_limits(files[i], info); !within) return in_frame(i, files, within.error());
    if (i == 0) size = info.size;
    if (info.size != size)
      return fail(Code::kInvalidArgument,
                  "frames of one video must be of one size: frame 1 is {} x {}, frame {} is {} x {}", size.width,
                  size.height, i + 1, info.size.width, info.size.height);
  }
  PicturePlan out;
  ASSIGN_OR_RETURN(out.target, layout_.target_size({size.height, size.width}, config));
  out.grid = layout_.grid_of(out.target, static_cast<std::int64_t>(files.size()), config);
  out.rows = out.grid.rows(config.merge_size);
  return out;
}

Result<PreparedPicture> Encoder::prepare(PictureFiles files, const PicturePlan& plan) const {
  PreparedPicture out;
  out.grid = plan.grid;
  std::vector<Image> frames;
  frames.reserve(files.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    Stopwatch watch;
    const Result<Image> image = decode(files[i], limits_, stats_);
    if (!image) return in_frame(i, files, image.error());
    out.times.decode_ms += watch.lap();
    ASSIGN_OR_RETURN(Image resized, resize_bicubic(*image, {plan.target.width, plan.target.height}, &threads_));
    out.times.resize_ms += watch.lap();
    frames.push_back(std::move(resized));
  }
  std::vector<const Image*> pointers;
  pointers.reserve(frames.size());
  for (const Image& frame : frames) pointers.push_back(&frame);
  const Stopwatch watch;
  const PatchifyOptions options = patchify_options(preprocessor_);
  ASSIGN_OR_RETURN(const PatchifyShape shape, patchify_shape(pointers, options));
  ASSIGN_OR_RETURN(out.pixel_values, Matrix::create(shape.rows, shape.cols));
  RETURN_IF_ERROR(
      patchify(pointers, options, {out.pixel_values.data(), static_cast<std::size_t>(out.pixel_values.size())}));
  out.times.patchify_ms += watch.ms();
  return out;
}

// The model, with what its memory may throw kept inside.
Result<Matrix> Encoder::pass(ConstMatrixView pixel_values, std::span<const Grid> grids) const try {
  return model_.encode(pixel_values, grids);
} catch (const std::exception& e) {
  return fail(Code::kInternal, "the vision encoder failed: {}", e.what());
}

Result<EncodedPicture> Encoder::encode_alone(const PreparedPicture& picture) const {
  EncodedPicture out{.grid = picture.grid, .rows = {}, .times = picture.times};
  const Stopwatch watch;
  ASSIGN_OR_RETURN(out.rows, pass(picture.pixel_values.view(), {&picture.grid, 1}));
  out.times.encode_ms = watch.ms();
  return out;
}

Result<std::vector<EncodedPicture>> Encoder::encode_together(std::span<const PreparedPicture> pictures) const {
  std::vector<Grid> grids;
  grids.reserve(pictures.size());
  std::int64_t patches = 0;
  for (const PreparedPicture& picture : pictures) {
    grids.push_back(picture.grid);
    patches += picture.grid.patches();
  }
  ASSIGN_OR_RETURN(Matrix all, Matrix::create(patches, pictures.front().pixel_values.cols()));
  std::int64_t row = 0;
  for (const PreparedPicture& picture : pictures) {
    const Matrix& values = picture.pixel_values;
    CHECK(values.rows() == picture.grid.patches() && values.cols() == all.cols());
    std::copy_n(values.data(), values.size(), all.row(row));
    row += values.rows();
  }
  const Stopwatch watch;
  ASSIGN_OR_RETURN(const Matrix rows, pass(all.view(), grids));
  const double encode_ms = watch.ms();
  std::vector<EncodedPicture> out(pictures.size());
  std::int64_t first = 0;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    out[i].grid = pictures[i].grid;
    out[i].times = pictures[i].times;
    out[i].times.encode_ms = encode_ms * static_cast<double>(grids[i].patches()) / static_cast<double>(patches);
    const std::int64_t count = grids[i].rows(preprocessor_.merge_size);
    ASSIGN_OR_RETURN(out[i].rows, Matrix::create(count, rows.cols()));
    std::copy_n(rows.row(first), out[i].rows.size(), out[i].rows.data());
    first += count;
  }
  return out;
}

std::vector<Result<EncodedPicture>> Encoder::encode_prepared(std::span<const PreparedPicture> pictures) const {
  std::vector<Result<EncodedPicture>> out;
  out.reserve(pictures.size());
  if (pictures.size() > 1) {
    if (auto together = encode_together(pictures)) {
      for (EncodedPicture& picture : *together) out.emplace_back(std::move(picture));
      return out;
    }
  }
  for (const PreparedPicture& picture : pictures) out.push_back(encode_alone(picture));
  return out;
}

Result<EncodedPicture> Encoder::encode(PictureFiles files, const PixelBounds& bounds) const {
  ASSIGN_OR_RETURN(const PicturePlan planned, plan(files, bounds));
  ASSIGN_OR_RETURN(const PreparedPicture picture, prepare(files, planned));
  return encode_alone(picture);
}

}  // namespace chiasm
