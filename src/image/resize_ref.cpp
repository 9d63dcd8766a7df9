// Bicubic scaling in plain loops: the definition that the fast one is tested against.
#include "image/resize.h"
#include "image/resize_weights.h"

namespace chiasm {

namespace {

Result<Image> resize_width(const Image& image, std::int64_t width) {
  if (width == image.width()) return image;
  ASSIGN_OR_RETURN(Image out, Image::create({width, image.height()}));
  const resample::Weights weights = resample::bicubic_weights(image.width(), width, 1);
  for (std::int64_t y = 0; y < image.height(); ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const std::uint8_t* from = image.row(y) + 3 * weights.first[x] + c;
        std::int32_t sum = 0;
        for (std::int64_t t = 0; t < weights.count[x]; ++t) sum += from[3 * t] * weights.of(x)[t];
        out.row(y)[3 * x + c] = resample::to_sample(sum);
      }
    }
  }
  return out;
}

Result<Image> resize_height(const Image& image, std::int64_t height) {
  if (height == image.height()) return image;
  ASSIGN_OR_RETURN(Image out, Image::create({image.width(), height}));
  const resample::Weights weights = resample::bicubic_weights(image.height(), height, 1);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < out.row_bytes(); ++x) {
      std::int32_t sum = 0;
      for (std::int64_t t = 0; t < weights.count[y]; ++t) sum += image.row(weights.first[y] + t)[x] * weights.of(y)[t];
      out.row(y)[x] = resample::to_sample(sum);
    }
  }
  return out;
}

}  // namespace

Result<Image> resize_bicubic_reference(const Image& image, ImageSize target) {
  RETURN_IF_ERROR(pixel_count(target));
  RETURN_IF_ERROR(pixel_count(image.size()));
  if (resample::vertical_first(image.size(), target)) {
    ASSIGN_OR_RETURN(const Image between, resize_height(image, target.height));
    return resize_width(between, target.width);
  }
  ASSIGN_OR_RETURN(const Image between, resize_width(image, target.width));
  return resize_height(between, target.height);
}

}  // namespace chiasm
