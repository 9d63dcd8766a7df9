#include "image/resize.h"

#include <random>

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include "image/decode.h"
#include "image/test_files.h"

namespace chiasm {
namespace {

Image noise(ImageSize size, std::uint32_t seed) {
  Image image = Image::create(size).value();
  std::mt19937 random(seed);
  for (std::uint8_t& sample : image.pixels()) sample = static_cast<std::uint8_t>(random() >> 13);
  return image;
}

TEST(Resize, EqualsPillowByteForByte) {
  const SafetensorsFile file = testing::vectors_of("resize.safetensors");
  const Image source = testing::image_of(file.view().tensor("source").value());
  const Image strip = testing::image_of(file.view().tensor("strip").value());
  int compared = 0;
  for (const auto& [name, info] : file.view().tensors()) {
    if (name == "source" || name == "strip") continue;
    SCOPED_TRACE(name);
    const Image expected = testing::image_of(file.view().tensor(name).value());
    const Image& from = name.starts_with("strip") ? strip : source;
    const auto fast = resize_bicubic(from, expected.size());
    ASSERT_TRUE(fast) << fast.error().message;
    EXPECT_TRUE(*fast == expected);
    const auto reference = resize_bicubic_reference(from, expected.size());
    ASSERT_TRUE(reference) << reference.error().message;
    EXPECT_TRUE(*reference == expected);
    ++compared;
  }
  EXPECT_GE(compared, 15);
}

// The vectors of the reference processor that the whole project shares: opened, converted and scaled there.
TEST(Resize, EqualsTheProjectGoldens) {
  const std::filesystem::path folder = goldens_dir() / "images";
  if (!std::filesystem::exists(folder / "resize.safetensors")) {
    GTEST_SKIP() << "tests/goldens/images/resize.safetensors is not here";
  }
  const auto file = SafetensorsFile::open(folder / "resize.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  int compared = 0;
  for (const auto& [name, info] : file->view().tensors()) {
    SCOPED_TRACE(name);
    const auto bytes = read_file(folder / name.substr(0, name.find('/')), 1 << 24);
    ASSERT_TRUE(bytes) << bytes.error().message;
    const auto image = decode(*bytes);
    ASSERT_TRUE(image) << image.error().message;
    const Image expected = testing::image_of(file->view().tensor(name).value());
    const auto resized = resize_bicubic(*image, expected.size());
    ASSERT_TRUE(resized) << resized.error().message;
    // There transparency is dropped, here it is composed on white: only the size can agree.
    const bool transparent = name.find("-rgba.png") != std::string::npos || name.find("-la.png") != std::string::npos;
    if (transparent) continue;
    EXPECT_TRUE(*resized == expected);
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

TEST(Resize, FastEqualsReference) {
  std::mt19937 random(3);
  ThreadPool pool(3);
  const auto side = [&] { return static_cast<std::int64_t>(1 + random() % (random() % 3 == 0 ? 150 : 24)); };
  for (int i = 0; i < 300; ++i) {
    const Image image = noise({side(), side()}, random());
    const ImageSize target{side(), side()};
    const auto expected = resize_bicubic_reference(image, target);
    ASSERT_TRUE(expected);
    EXPECT_TRUE(*resize_bicubic(image, target) == *expected)
        << image.width() << " x " << image.height() << " to " << target.width << " x " << target.height;
    EXPECT_TRUE(*resize_bicubic(image, target, &pool) == *expected);
  }
}

// Every instruction set that this machine has, not the best one only.
TEST(Resize, InstructionSetsAgree) {
  const Image image = noise({97, 61}, 5);
  for (const ImageSize target : {ImageSize{31, 19}, ImageSize{160, 90}, ImageSize{97, 20}}) {
    const auto expected = resize_bicubic_reference(image, target);
    ASSERT_TRUE(expected);
    for (const std::int64_t set : hwy::SupportedAndGeneratedTargets()) {
      hwy::SetSupportedTargetsForTest(set);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      EXPECT_TRUE(*resize_bicubic(image, target) == *expected) << hwy::TargetName(set);
      hwy::SetSupportedTargetsForTest(0);
    }
    hwy::GetChosenTarget().DeInit();
  }
}

TEST(Resize, OvershootIsClipped) {
  Image edge = Image::create({16, 16}).value();
  for (std::int64_t y = 0; y < 16; ++y) std::fill(edge.row(y) + 24, edge.row(y) + 48, std::uint8_t{255});
  const auto wide = resize_bicubic(edge, {64, 40});
  ASSERT_TRUE(wide);
  EXPECT_EQ(wide->row(5)[0], 0);
  EXPECT_EQ(wide->row(5)[3 * 63], 255);
  EXPECT_TRUE(*wide == *resize_bicubic_reference(edge, {64, 40}));
}

TEST(Resize, WrongSizesAreRefused) {
  const Image image = noise({4, 4}, 1);
  EXPECT_EQ(resize_bicubic(image, {0, 4}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(resize_bicubic(image, {4, -1}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(resize_bicubic(image, {std::int64_t{1} << 31, 1}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(resize_bicubic(Image(), {4, 4}).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace chiasm
