#include "image/patchify.h"

#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/decode.h"
#include "image/resize.h"
#include "image/test_files.h"

namespace chiasm {
namespace {

using ::testing::HasSubstr;

std::vector<float> patches_of(std::span<const Image* const> frames, const PatchifyOptions& options = {}) {
  const auto shape = patchify_shape(frames, options);
  if (!shape) {
    ADD_FAILURE() << shape.error().message;
    return {};
  }
  std::vector<float> out(static_cast<std::size_t>(shape->rows * shape->cols), std::nanf(""));
  const auto status = patchify(frames, options, out);
  EXPECT_TRUE(status) << status.error().message;
  return out;
}

std::vector<float> floats_of(const SafetensorsFile& file, const std::string& name) {
  return to_f32(file.view().tensor(name).value()).value();
}

std::array<std::int64_t, 3> grid_of(const SafetensorsFile& file, const std::string& name) {
  std::array<std::int64_t, 3> grid{};
  const auto bytes = file.view().tensor(name).value().bytes;
  EXPECT_EQ(bytes.size(), sizeof grid);
  std::memcpy(grid.data(), bytes.data(), sizeof grid);
  return grid;
}

// Scaling, normalising and order together, bit for bit.
TEST(Patchify, EqualsTheReferenceProcessor) {
  const SafetensorsFile file = testing::vectors_of("patches.safetensors");
  const Image source = testing::image_of(file.view().tensor("picture").value());
  const auto grid = grid_of(file, "picture.grid_thw");
  const auto resized = resize_bicubic(source, {grid[2] * 14, grid[1] * 14});
  ASSERT_TRUE(resized);
  const Image* frame = &*resized;
  const auto shape = patchify_shape({&frame, 1}, {});
  ASSERT_TRUE(shape);
  EXPECT_EQ((std::array{shape->grid_t, shape->grid_h, shape->grid_w}), grid);
  EXPECT_EQ(patches_of({&frame, 1}), floats_of(file, "picture.pixel_values"));
}

TEST(Patchify, EverySampleValueRoundsAsTheReference) {
  const SafetensorsFile file = testing::vectors_of("patches.safetensors");
  const Image ramp = testing::image_of(file.view().tensor("ramp").value());
  const Image* frame = &ramp;
  EXPECT_EQ(patches_of({&frame, 1}, {.patch_size = 4}), floats_of(file, "ramp.pixel_values"));
}

TEST(Patchify, AnOddFrameCountRepeatsTheLast) {
  const SafetensorsFile file = testing::vectors_of("patches.safetensors");
  const TensorView all = file.view().tensor("frames").value();
  std::vector<Image> images;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t size = all.bytes.size() / 3;
    images.push_back(
        testing::image_of({all.dtype, {all.shape[1], all.shape[2], 3}, all.bytes.subspan(i * size, size)}));
  }
  const Image* frames[] = {&images[0], &images[1], &images[2], &images[2]};
  const std::vector<float> expected = floats_of(file, "frames.pixel_values");
  EXPECT_EQ(patches_of({frames, 3}, {.patch_size = 4}), expected);
  EXPECT_EQ(patches_of({frames, 4}, {.patch_size = 4}), expected);
  const auto shape = patchify_shape({frames, 3}, {.patch_size = 4});
  ASSERT_TRUE(shape);
  EXPECT_EQ((std::array{shape->grid_t, shape->grid_h, shape->grid_w}), grid_of(file, "frames.grid_thw"));
}

TEST(Patchify, WrongInputIsRefused) {
  const Image image = Image::create({56, 28}).value(), other = Image::create({28, 28}).value();
  const Image odd = Image::create({56, 29}).value();
  const Image* frames[] = {&image, &other};
  const Image* odd_frame = &odd;
  EXPECT_THAT(patchify_shape({}, {}).error().message, HasSubstr("at least one frame"));
  EXPECT_THAT(patchify_shape({frames, 2}, {}).error().message, HasSubstr("got 28 x 28 for frame 1"));
  EXPECT_THAT(patchify_shape({&odd_frame, 1}, {}).error().message, HasSubstr("multiples of 28, got 56 x 29"));
  EXPECT_FALSE(patchify_shape({frames, 1}, {.patch_size = 0}));
  EXPECT_FALSE(patchify_shape({frames, 1}, {.temporal_patch_size = -1}));
  EXPECT_FALSE(patchify_shape({frames, 1}, {.image_std = {1, 0, 1}}));
  EXPECT_FALSE(patchify_shape({frames, 1}, {.image_mean = {1, NAN, 1}}));
  std::vector<float> small(10);
  EXPECT_THAT(patchify({frames, 1}, {}, small).error().message, HasSubstr("8 x 1176 floats, got 10"));
}

// The grid of `patches` patches in whole merge blocks that is most like a picture of `size`.
ImageSize grid_like(ImageSize size, std::int64_t patches) {
  const double wanted = std::log(static_cast<double>(size.width) / static_cast<double>(size.height));
  ImageSize best;
  double distance = INFINITY;
  for (std::int64_t h = 2; h <= patches; h += 2) {
    if (patches % (2 * h) != 0) continue;
    const std::int64_t w = patches / h;
    const double off = std::abs(std::log(static_cast<double>(w) / static_cast<double>(h)) - wanted);
    if (off < distance) distance = off, best = {w, h};
  }
  return best;
}

// The demo pictures that came with the project's reference, where they are: PNG within half precision of the reference,
// JPEG within what two JPEG libraries may differ by.
TEST(Patchify, EqualsTheSharedReference) {
  const std::filesystem::path eval = shared_dir() / "toytown/eval";
  if (!std::filesystem::exists(eval / "reference.safetensors")) {
    GTEST_SKIP() << "the shared evaluation pictures are not here: set CHIASM_SHARED";
  }
  auto file = SafetensorsFile::open(eval / "reference.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(eval)) {
    const std::string name = entry.path().filename().string();
    if (!file->view().contains(name + "/pixel_values")) continue;
    SCOPED_TRACE(name);
    const auto bytes = read_file(entry.path(), 1 << 24);
    ASSERT_TRUE(bytes);
    const auto image = decode(*bytes);
    ASSERT_TRUE(image) << image.error().message;
    const std::vector<float> expected = floats_of(*file, name + "/pixel_values");
    const ImageSize grid = grid_like(image->size(), static_cast<std::int64_t>(expected.size()) / 1176);
    const auto resized = resize_bicubic(*image, {grid.width * 14, grid.height * 14});
    ASSERT_TRUE(resized);
    const Image* frame = &*resized;
    const std::vector<float> got = patches_of({&frame, 1});
    ASSERT_EQ(got.size(), expected.size());
    float largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) largest = std::max(largest, std::abs(got[i] - expected[i]));
    EXPECT_LE(largest, entry.path().extension() == ".png" ? 2e-3F : 0.05F);
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

}  // namespace
}  // namespace chiasm
