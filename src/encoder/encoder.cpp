#include "encoder/encoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/stopwatch.h"
#include "image/patchify.h"
#include "image/probe.h"
#include "image/resize.h"

namespace chiasm {
namespace {

PatchifyOptions patchify_options(const PreprocessorConfig& config) {
  return {config.patch_size, config.temporal_patch_size, config.merge_size, config.image_mean, config.image_std};
}

// Of a video, the error says which frame; frames count from 1.
tl::unexpected<Error> in_frame(std::size_t i, PictureFiles files, const Error& error) {
  if (files.size() == 1) return tl::unexpected(error);
  return fail_in(fmt::format("frame {} of {}", i + 1, files.size()), error);
}

}  // namespace

Result<PicturePlan> Encoder::plan(PictureFiles files) const {
  if (files.empty()) return fail(Code::kInvalidArgument, "expected a picture or the frames of a video, got no file");
  ImageSize size;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const Result<ImageInfo> probed = probe(files[i], stats_);
    if (!probed) return in_frame(i, files, probed.error());
    const ImageInfo& info = *probed;
    if (i == 0) size = info.size;
    if (info.size != size)
      return fail(Code::kInvalidArgument,
                  "frames of one video must be of one size: frame 1 is {} x {}, frame {} is {} x {}", size.width,
                  size.height, i + 1, info.size.width, info.size.height);
  }
  PicturePlan out;
  ASSIGN_OR_RETURN(out.target, layout_.target_size({size.height, size.width}, preprocessor_));
  out.grid = layout_.grid_of(out.target, static_cast<std::int64_t>(files.size()), preprocessor_);
  out.rows = out.grid.rows(preprocessor_.merge_size);
  return out;
}

Result<Matrix> Encoder::pixel_values(PictureFiles files, const PicturePlan& plan, EncodeTimes& times) const {
  std::vector<Image> frames;
  for (std::size_t i = 0; i < files.size(); ++i) {
    Stopwatch watch;
    const Result<Image> image = decode(files[i], limits_, stats_);
    if (!image) return in_frame(i, files, image.error());
    times.decode_ms += watch.lap();
    ASSIGN_OR_RETURN(Image resized, resize_bicubic(*image, {plan.target.width, plan.target.height}, &threads_));
    times.resize_ms += watch.lap();
    frames.push_back(std::move(resized));
  }
  std::vector<const Image*> pointers;
  pointers.reserve(frames.size());
  for (const Image& frame : frames) pointers.push_back(&frame);
  const Stopwatch watch;
  const PatchifyOptions options = patchify_options(preprocessor_);
  ASSIGN_OR_RETURN(const PatchifyShape shape, patchify_shape(pointers, options));
  ASSIGN_OR_RETURN(Matrix out, Matrix::create(shape.rows, shape.cols));
  RETURN_IF_ERROR(patchify(pointers, options, {out.data(), static_cast<std::size_t>(out.size())}));
  times.patchify_ms += watch.ms();
  return out;
}

Result<EncodedPicture> Encoder::encode(PictureFiles files) const {
  ASSIGN_OR_RETURN(const PicturePlan planned, plan(files));
  EncodedPicture out;
  out.grid = planned.grid;
  ASSIGN_OR_RETURN(const Matrix pixels, pixel_values(files, planned, out.times));
  const Stopwatch watch;
  ASSIGN_OR_RETURN(out.rows, model_.encode(pixels.view(), {&planned.grid, 1}));
  out.times.encode_ms = watch.ms();
  return out;
}

Result<std::vector<EncodedPicture>> Encoder::encode_batch(std::span<const PictureFiles> pictures) const {
  std::vector<EncodedPicture> out(pictures.size());
  std::vector<Matrix> pixels;
  std::vector<Grid> grids;
  std::int64_t patches = 0;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    ASSIGN_OR_RETURN(const PicturePlan planned, plan(pictures[i]));
    out[i].grid = planned.grid;
    ASSIGN_OR_RETURN(Matrix values, pixel_values(pictures[i], planned, out[i].times));
    grids.push_back(planned.grid);
    patches += planned.grid.patches();
    pixels.push_back(std::move(values));
  }
  if (pixels.empty()) return out;
  ASSIGN_OR_RETURN(Matrix all, Matrix::create(patches, pixels.front().cols()));
  std::int64_t row = 0;
  for (const Matrix& values : pixels) {
    std::copy_n(values.data(), values.size(), all.row(row));
    row += values.rows();
  }
  const Stopwatch watch;
  ASSIGN_OR_RETURN(const Matrix rows, model_.encode(all.view(), grids));
  const double encode_ms = watch.ms();
  std::int64_t first = 0;
  for (EncodedPicture& picture : out) {
    const std::int64_t count = picture.grid.rows(preprocessor_.merge_size);
    picture.rows = Matrix(count, rows.cols());
    std::copy_n(rows.row(first), picture.rows.size(), picture.rows.data());
    picture.times.encode_ms = encode_ms * static_cast<double>(picture.grid.patches()) / static_cast<double>(patches);
    first += count;
  }
  return out;
}

}  // namespace chiasm
