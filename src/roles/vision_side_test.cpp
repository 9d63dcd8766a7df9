// The vision side as servers use it: tenants, bounds, ids, deadlines, damaged pictures.
#include "roles/vision_side.h"

#include <atomic>
#include <cstdlib>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"
#include "features/feature_file.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

class VisionSideTest : public testing::Test {
 protected:
  void SetUp() override { ::setenv("XDG_CACHE_HOME", (folder_.path() / "cache").c_str(), 1); }

  VisionSideOptions options(bool disk = false) const {
    VisionSideOptions out;
    out.model = toytown_dir();
    if (disk) out.features = folder_.path() / "features";
    return out;
  }
  std::unique_ptr<VisionSide> open(const VisionSideOptions& options) {
    return must(VisionSide::open(options, threads_));
  }

  TemporaryFolder folder_;
  ThreadPool threads_{2};
  const std::vector<std::byte> bytes_ = must(read_file(toytown_dir() / "eval" / "scene-00.png", 1 << 24));
  const std::vector<std::span<const std::byte>> picture_{bytes_};
};

TEST_F(VisionSideTest, BoundsAndTenantsHaveFeaturesOfTheirOwn) {
  const auto side = open(options());
  const PixelBounds small{.min_pixels = 784, .max_pixels = 20 * 784};
  const SeenPicture usual = must(side->look(picture_)), less = must(side->look(picture_, {.bounds = small}));
  EXPECT_EQ(less.source, Source::kEncoded);
  EXPECT_EQ(usual.feature->meta.arithmetic, "F32");  // this side computes on the CPU
  EXPECT_LE(less.feature->rows.rows(), 20);
  EXPECT_GT(usual.feature->rows.rows(), 20);
  EXPECT_EQ(must(side->look(picture_, {.bounds = small})).source, Source::kMemory);
  EXPECT_EQ(less.feature->meta.preprocess_digest, must(with_bounds(side->preprocessor(), small)).digest());
  EXPECT_EQ(less.feature->meta.id, must(side->key_of(picture_, "", small)).id);
  // What the folder says anyway is no other size.
  const PixelBounds same{.min_pixels = side->preprocessor().min_pixels, .max_pixels = side->preprocessor().max_pixels};
  EXPECT_EQ(must(side->look(picture_, {.bounds = same})).source, Source::kMemory);
  // A side that was opened with these bounds makes the same.
  VisionSideOptions bounded = options();
  bounded.min_pixels = small.min_pixels;
  bounded.max_pixels = small.max_pixels;
  EXPECT_EQ(must(open(bounded)->key_of(picture_)), must(side->key_of(picture_, "", small)));

  const SeenPicture theirs = must(side->look(picture_, {.bounds = {}, .tenant = "theirs"}));
  EXPECT_EQ(theirs.source, Source::kEncoded);
  EXPECT_NE(theirs.feature->meta.id, usual.feature->meta.id);

  const auto refused = side->look(picture_, {.bounds = {.min_pixels = 10, .max_pixels = 5}});
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_FALSE(side->key_of(picture_, "", {.min_pixels = 0, .max_pixels = {}}).has_value());
}

TEST_F(VisionSideTest, WhatIsKeptIsFoundAndForgottenByItsTenantOnly) {
  FeatureId id;
  {
    const auto side = open(options(true));
    id = must(side->look(picture_, {.bounds = {}, .tenant = "mine"})).feature->meta.id;
    EXPECT_EQ(must(side->find(id, "mine")).source, Source::kMemory);
  }
  const auto side = open(options(true));
  for (const char* other : {"theirs", ""}) {
    EXPECT_EQ(side->find(id, other).error().code, Code::kNotFound);
    EXPECT_EQ(side->forget(id, other).error().code, Code::kNotFound);
  }
  // The words do not tell another's feature from none at all.
  FeatureId none = id;
  none.digest.bytes[0] ^= 1;
  const std::string absent = side->find(none, "mine").error().message,
                    hidden = side->find(id, "theirs").error().message;
  EXPECT_EQ(absent.substr(0, absent.find(none.hex())), hidden.substr(0, hidden.find(id.hex())));

  const auto fresh = open(options(true));
  const SeenPicture found = must(fresh->find(id, "mine"));
  EXPECT_EQ(found.source, Source::kDisk);
  EXPECT_EQ(found.feature->meta.id, id);
  EXPECT_EQ(fresh->weight_bytes(), 0U);
  must(fresh->forget(id, "mine"));
  EXPECT_EQ(fresh->find(id, "mine").error().code, Code::kNotFound);
  EXPECT_EQ(fresh->forget(id, "mine").error().code, Code::kNotFound);
  EXPECT_EQ(must(fresh->look(picture_, {.bounds = {}, .tenant = "mine"})).source, Source::kEncoded);
}

TEST_F(VisionSideTest, VideosAreFoundByTheirTenant) {
  const auto side = open(options());
  std::vector<std::vector<std::byte>> frames;
  for (int i = 0; i < 3; ++i)
    frames.push_back(must(read_file(toytown_dir() / "eval" / fmt::format("video-frame-{}.png", i), 1 << 24)));
  const std::vector<std::span<const std::byte>> files(frames.begin(), frames.end());
  for (const std::size_t count : {1U, 2U, 3U}) {
    const SeenPicture seen = must(side->look(PictureFiles(files).first(count), {.bounds = {}, .tenant = "mine"}));
    EXPECT_EQ(must(side->find(seen.feature->meta.id, "mine")).feature, seen.feature);
    EXPECT_FALSE(side->find(seen.feature->meta.id, "theirs").has_value());
  }
}

TEST_F(VisionSideTest, WhoIsAtFaultShowsInTheCode) {
  const auto side = open(options());
  const std::vector<std::byte> noise(100, std::byte{7});
  const std::vector<std::span<const std::byte>> foreign{noise}, cut{std::span(bytes_).first(2000)};
  EXPECT_EQ(side->look(foreign, LookOptions{}).error().code, Code::kInvalidArgument);
  const auto truncated = side->look(cut, LookOptions{});
  EXPECT_EQ(truncated.error().code, Code::kInvalidArgument);
  EXPECT_THAT(truncated.error().message, HasSubstr("PNG: truncated"));
  // What a library says of the damage is for a command line.
  std::vector<std::byte> damaged = bytes_;
  damaged[damaged.size() / 2] ^= std::byte{0xff};
  const std::vector<std::span<const std::byte>> corrupt{damaged};
  const auto told = side->look(corrupt, kNoDeadline), shown = side->look(corrupt, LookOptions{});
  ASSERT_FALSE(told);
  ASSERT_FALSE(shown);
  EXPECT_THAT(told.error().message, HasSubstr("PNG: corrupt: "));
  EXPECT_EQ(shown.error().message, "PNG: corrupt");

  VisionSideOptions broken = options();
  broken.model = folder_.path() / "broken";
  std::filesystem::copy(toytown_dir(), broken.model);
  const auto opened = open(broken);
  for (const auto& entry : std::filesystem::directory_iterator(broken.model))
    if (entry.path().extension() == ".safetensors") std::filesystem::resize_file(entry.path(), 100);
  EXPECT_EQ(opened->look(picture_, LookOptions{}).error().code, Code::kInternal);
  EXPECT_FALSE(opened->encoder().has_value());
}

TEST_F(VisionSideTest, AWaitForTheWeightsEndsAtItsDeadline) {
  std::promise<void> begun, go_on;
  VisionSideOptions with = options();
  with.on_load = [&](bool loaded) {
    if (loaded) return;
    begun.set_value();
    go_on.get_future().wait();
  };
  const auto side = open(with);
  auto loading = std::async(std::launch::async, [&] { return side->encoder().has_value(); });
  begun.get_future().wait();
  EXPECT_EQ(side->encoder(std::chrono::steady_clock::now() + 20ms).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(side->look(picture_, {.bounds = {}, .deadline = std::chrono::steady_clock::now() + 20ms}).error().code,
            Code::kDeadlineExceeded);
  EXPECT_EQ(side->encode_status().batches, 0U);
  go_on.set_value();
  EXPECT_TRUE(loading.get());
  EXPECT_GT(side->weight_bytes(), 0U);
  EXPECT_EQ(must(side->look(picture_, LookOptions{})).source, Source::kEncoded);
  EXPECT_EQ(side->encode_status().pictures, 1U);
}

}  // namespace
}  // namespace chiasm
