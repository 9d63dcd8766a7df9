#include "image/decode.h"

#include <algorithm>
#include <cstdlib>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/codec.h"
#include "image/test_files.h"

namespace chiasm {
namespace {

using testing::bytes_of;
using ::testing::HasSubstr;

struct Case {
  std::string name;
  Image expected;
};

// Every picture of the folder with the pixels it must give.
const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> out;
    const SafetensorsFile file = testing::vectors_of("golden.safetensors");
    for (const auto& [name, info] : file.view().tensors()) {
      out.push_back({name, testing::image_of(file.view().tensor(name).value())});
    }
    return out;
  }();
  return all;
}

int largest_difference(const Image& a, const Image& b) {
  if (a.size() != b.size()) return 256;
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels().size(); ++i)
    largest = std::max(largest, std::abs(a.pixels()[i] - b.pixels()[i]));
  return largest;
}

bool is_jpeg(const std::string& name) { return name.ends_with(".jpg"); }

TEST(Decode, EveryFileInTheFolderHasAnExpectation) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::images_dir())) {
    files += entry.path().extension() != ".safetensors";
  }
  EXPECT_EQ(files, cases().size());
  EXPECT_GT(files, 90U);
}

TEST(Decode, PixelsEqualTheReference) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(test.name);
    const auto image = decode(bytes_of(test.name));
    ASSERT_TRUE(image) << image.error().message;
    ASSERT_EQ(image->size(), test.expected.size());
    // Two versions of libjpeg-turbo may round differently; all else is exact.
    EXPECT_LE(largest_difference(*image, test.expected), is_jpeg(test.name) ? 2 : 0);
  }
}

TEST(Decode, ProbeTellsTheDecodedSizeAndOpensNoDecoder) {
  CodecStats stats;
  for (const Case& test : cases()) {
    SCOPED_TRACE(test.name);
    const auto info = probe(bytes_of(test.name), &stats);
    ASSERT_TRUE(info) << info.error().message;
    EXPECT_EQ(info->size, test.expected.size());
  }
  EXPECT_EQ(stats.probes, static_cast<std::int64_t>(cases().size()));
  EXPECT_EQ(stats.decodes, 0);
}

TEST(Decode, CountsDecoders) {
  CodecStats stats;
  ASSERT_TRUE(decode(bytes_of("rgb.png"), {}, &stats));
  ASSERT_TRUE(decode(bytes_of("rgb_420.jpg"), {}, &stats));
  EXPECT_EQ(stats.decodes, 2);
  EXPECT_FALSE(decode(bytes_of("rgb.png"), {.max_pixels = 10}, &stats));
  EXPECT_EQ(stats.decodes, 2);
}

TEST(Decode, OrientationsAreTold) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto info = probe(bytes_of("orientation_" + std::to_string(orientation) + ".jpg"));
    ASSERT_TRUE(info);
    EXPECT_EQ(info->orientation, orientation);
    EXPECT_EQ(info->stored, (ImageSize{12, 7}));
    EXPECT_EQ(info->size, orientation >= 5 ? (ImageSize{7, 12}) : (ImageSize{12, 7}));
  }
  EXPECT_EQ(probe(bytes_of("orientation_9.jpg"))->orientation, 1);
  EXPECT_EQ(probe(bytes_of("orientation_6.png"))->orientation, 6);
  EXPECT_EQ(probe(bytes_of("orientation_6.webp"))->orientation, 6);
}

// A file cut anywhere gives the whole picture (what was cut is no pixel) or an error, and never a part of it.
TEST(Decode, CutFilesGiveNoPartialPicture) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(test.name);
    const std::vector<std::byte> bytes = bytes_of(test.name);
    const auto whole = decode(bytes);
    ASSERT_TRUE(whole);
    const std::size_t step = std::max<std::size_t>(1, bytes.size() / 150);
    std::size_t refused = 0, tried = 0;
    for (std::size_t size = 0; size < bytes.size(); size += size < 64 ? 1 : step) {
      // A copy of its own, so that a sanitizer sees a read behind the end.
      const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      const auto image = decode(cut);
      ++tried;
      if (image) {
        EXPECT_TRUE(*image == *whole) << "cut to " << size << " of " << bytes.size();
        continue;
      }
      ++refused;
      EXPECT_FALSE(image.error().message.empty());
      if (size >= 64) {
        EXPECT_EQ(image.error().code, Code::kDataLoss) << image.error().message << " at " << size;
      }
    }
    EXPECT_GT(refused, tried / 2);
  }
}

TEST(Decode, TruncationIsSaid) {
  for (const char* name :
       {"rgb_420.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png", "rgba_adam7.png", "lossy.webp", "lossless.webp",
        "animated_part.webp", "plain.gif", "interlaced.gif", "bgr24.bmp", "rle8.bmp"}) {
    auto bytes = bytes_of(name);
    bytes.resize(bytes.size() * 2 / 3);
    const auto image = decode(bytes);
    ASSERT_FALSE(image) << name;
    EXPECT_EQ(image.error().code, Code::kDataLoss) << name;
    EXPECT_THAT(image.error().message, HasSubstr("truncated")) << name;
  }
}

// Damage anywhere is an error or some picture of the size that the header tells; nothing breaks.
TEST(Decode, DamagedFilesBreakNothing) {
  std::mt19937 random(7);
  for (const Case& test : cases()) {
    const std::vector<std::byte> bytes = bytes_of(test.name);
    for (int i = 0; i < 60; ++i) {
      std::vector<std::byte> damaged = bytes;
      for (int k = 0; k < 1 + i % 3; ++k) damaged[random() % damaged.size()] = static_cast<std::byte>(random());
      const DecodeLimits limits{.max_pixels = 1 << 16};
      const auto info = probe(damaged);
      const auto image = decode(damaged, limits);
      if (!image) continue;
      ASSERT_TRUE(info) << test.name;
      EXPECT_EQ(image->size(), info->size) << test.name;
    }
  }
}

void put_be32(std::vector<std::byte>& bytes, std::size_t at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (24 - 8 * i));
}

TEST(Decode, HugeHeadersAreRefusedBeforeADecoderOpens) {
  CodecStats stats;
  auto png = bytes_of("rgb.png");
  put_be32(png, 16, 60000), put_be32(png, 20, 60000);
  auto image = decode(png, {}, &stats);
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code, Code::kInvalidArgument);
  EXPECT_THAT(image.error().message, HasSubstr("60000 x 60000 = 3600000000"));
  put_be32(png, 16, 0x7FFFFFFF), put_be32(png, 20, 0x7FFFFFFF);
  EXPECT_EQ(decode(png, {}, &stats).error().code, Code::kInvalidArgument);
  put_be32(png, 16, 0xFFFFFFFF);
  EXPECT_EQ(decode(png, {}, &stats).error().code, Code::kInvalidArgument);

  auto bmp = bytes_of("rle8.bmp");  // runs say nothing about the size, so the header must
  for (std::size_t at : {18, 22}) bmp[at + 1] = std::byte{0x7F};
  bmp[20] = bmp[24] = std::byte{1};
  EXPECT_EQ(decode(bmp, {}, &stats).error().code, Code::kInvalidArgument);

  auto jpeg = bytes_of("gray.jpg");
  const std::byte frame[] = {std::byte{0xFF}, std::byte{0xC0}};
  const auto at = std::search(jpeg.begin(), jpeg.end(), frame, frame + 2) - jpeg.begin();
  for (int i = 5; i < 9; ++i) jpeg[at + i] = std::byte{0xFF};
  image = decode(jpeg, {}, &stats);
  EXPECT_EQ(image.error().code, Code::kInvalidArgument) << image.error().message;
  EXPECT_EQ(stats.decodes, 0);

  // With the limit raised the lie is found by what is missing, before memory is asked for.
  bmp = bytes_of("bgr24.bmp");
  for (std::size_t side : {18, 22}) bmp[side + 1] = bmp[side + 2] = bmp[side + 3] = std::byte{0x7F};
  image = decode(bmp, {.max_pixels = std::uint64_t{1} << 62}, &stats);
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message, HasSubstr("BMP: truncated"));
}

TEST(Decode, SidesOfZeroAreRefused) {
  auto png = bytes_of("rgb.png");
  put_be32(png, 16, 0);
  EXPECT_EQ(decode(png).error().code, Code::kInvalidArgument);
  auto bmp = bytes_of("bgr24.bmp");
  bmp[18] = std::byte{0};
  EXPECT_EQ(decode(bmp).error().code, Code::kInvalidArgument);
  EXPECT_THAT(decode(bmp).error().message, HasSubstr("0 x 17"));
  bmp[18] = std::byte{1}, bmp[21] = std::byte{0x80};  // a negative width
  EXPECT_EQ(decode(bmp).error().code, Code::kInvalidArgument);
  auto gif = bytes_of("plain.gif");
  const std::byte descriptor[] = {std::byte{0x2C}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
  const auto at = std::search(gif.begin(), gif.end(), descriptor, descriptor + 5) - gif.begin();
  gif[at + 5] = gif[at + 6] = std::byte{0};
  EXPECT_EQ(decode(gif).error().code, Code::kInvalidArgument);
}

TEST(Decode, VariantsThatAreNotReadAreNamed) {
  auto jpeg = bytes_of("rgb_444.jpg");
  const std::byte frame[] = {std::byte{0xFF}, std::byte{0xC0}};
  const auto at = std::search(jpeg.begin(), jpeg.end(), frame, frame + 2) - jpeg.begin();
  jpeg[at + 4] = std::byte{12};
  EXPECT_EQ(probe(jpeg).error().code, Code::kUnimplemented);
  EXPECT_THAT(probe(jpeg).error().message, HasSubstr("expected 8 bits a sample, got 12"));
  auto bmp = bytes_of("bgr24.bmp");
  bmp[30] = std::byte{4};
  EXPECT_THAT(probe(bmp).error().message, HasSubstr("compression 0 to 3 or 6, got 4"));
  bmp = bytes_of("bgr24.bmp");
  bmp[28] = std::byte{2};
  EXPECT_THAT(probe(bmp).error().message, HasSubstr("bits a pixel, got 2"));
}

TEST(Decode, ForeignFilesAreNamedByTheirBeginning) {
  EXPECT_EQ(probe({}).error().code, Code::kDataLoss);
  const std::vector<std::byte> pdf = {std::byte{'%'}, std::byte{'P'}, std::byte{'D'}, std::byte{'F'}};
  EXPECT_EQ(decode(pdf).error().code, Code::kUnimplemented);
  EXPECT_THAT(decode(pdf).error().message, HasSubstr("25 50 44 46"));
}

TEST(Decode, FilesBeyondTheLimitAreRefused) {
  const auto bytes = bytes_of("rgb.png");
  EXPECT_EQ(decode(bytes, {.max_bytes = bytes.size() - 1}).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(decode(bytes, {.max_bytes = bytes.size()}));
  EXPECT_FALSE(decode(bytes, {.max_pixels = 23 * 17 - 1}));
  EXPECT_TRUE(decode(bytes, {.max_pixels = 23 * 17}));
}

TEST(Decode, AWrongPixelChecksumIsCorruption) {
  auto bytes = bytes_of("rgb.png");
  for (const std::size_t from_end : {13, 40}) {  // CRC of the last IDAT; and its data
    auto damaged = bytes;
    damaged[damaged.size() - from_end] ^= std::byte{0x10};
    const auto image = decode(damaged);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, Code::kDataLoss);
  }
  bytes[29] ^= std::byte{1};  // CRC of IHDR
  EXPECT_THAT(decode(bytes).error().message, HasSubstr("PNG: corrupt"));
}

// What Pillow takes as the end of a file without its end marker.
TEST(Decode, AMissingEndMarkerLosesNoPixel) {
  auto bytes = bytes_of("rgb_444.jpg");
  const auto whole = decode(bytes);
  bytes.resize(bytes.size() - 2);
  const auto image = decode(bytes);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_TRUE(*image == *whole);
}

TEST(Decode, ManyScansAreRefused) {
  const auto bytes = bytes_of("gray_progressive.jpg");
  // The first scan, up to the tables of the next, again and again.
  const std::byte scan[] = {std::byte{0xFF}, std::byte{0xDA}}, tables[] = {std::byte{0xFF}, std::byte{0xC4}};
  const auto first = std::search(bytes.begin(), bytes.end(), scan, scan + 2);
  const auto next = std::search(first, bytes.end(), tables, tables + 2);
  std::vector<std::byte> many(bytes.begin(), next);
  for (int i = 0; i < 200; ++i) many.insert(many.end(), first, next);
  many.insert(many.end(), next, bytes.end());
  const auto image = decode(many);
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message, HasSubstr("scans"));
}

}  // namespace
}  // namespace chiasm
