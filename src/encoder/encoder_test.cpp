#include "encoder/encoder.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"
#include "image/patchify.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

class EncoderTest : public testing::Test {
 protected:
  std::span<const std::byte> file(const std::string& name) {
    bytes_.push_back(
        std::make_unique<std::vector<std::byte>>(read_file(toytown_dir() / "eval" / name, 1 << 24).value()));
    return *bytes_.back();
  }

  ThreadPool threads_{2};
  std::unique_ptr<Ops> ops_ = make_cpu_ops(threads_);
  Checkpoint checkpoint_ = *Checkpoint::open(toytown_dir(), Role::kVision);
  std::unique_ptr<const VisionModel> model_ = *load_vision_model(checkpoint_, *ops_);
  std::unique_ptr<const ModelLayout> layout_ = *make_layout(checkpoint_.config());
  PreprocessorConfig preprocessor_ = *load_preprocessor_config(toytown_dir());
  CodecStats stats_;
  Encoder encoder_{*model_, *layout_, preprocessor_, threads_, {}, &stats_};
  std::vector<std::unique_ptr<std::vector<std::byte>>> bytes_;
};

bool same_bits(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
}

TEST_F(EncoderTest, APictureIsTheSameAloneAndBesideOthers) {
  const std::vector<std::span<const std::byte>> wide{file("scene-00.png")}, square{file("scene-16.png")},
      tall{file("scene-20.png")}, photo{file("scene-03.jpg")};
  const std::vector<PictureFiles> batch{wide, square, tall, photo, wide};
  std::vector<PreparedPicture> prepared;
  for (const PictureFiles& files : batch) prepared.push_back(must(encoder_.prepare(files, must(encoder_.plan(files)))));
  auto together = encoder_.encode_prepared(prepared);
  ASSERT_EQ(together.size(), batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const EncodedPicture alone = encoder_.encode(batch[i]).value();
    EXPECT_EQ(alone.grid, together[i].value().grid);
    EXPECT_TRUE(same_bits(alone.rows, together[i]->rows)) << i;
  }
  EXPECT_FALSE(same_bits(together[0]->rows, together[1]->rows));
  EXPECT_TRUE(encoder_.encode_prepared({}).empty());
}

TEST_F(EncoderTest, BoundsOfOnePictureAreThoseOfAnotherPreprocessor) {
  const std::vector<std::span<const std::byte>> picture{file("scene-00.png")};
  const PixelBounds small{.min_pixels = 784, .max_pixels = 20 * 784},
      large{.min_pixels = 200 * 784, .max_pixels = 300 * 784};
  for (const PixelBounds& bounds : {small, large}) {
    const PreprocessorConfig config = must(with_bounds(preprocessor_, bounds));
    EXPECT_NE(config.digest(), preprocessor_.digest());
    const Encoder other(*model_, *layout_, config, threads_);
    const EncodedPicture got = must(encoder_.encode(picture, bounds));
    EXPECT_TRUE(same_bits(got.rows, must(other.encode(picture)).rows));
    EXPECT_GE(got.rows.rows() * 784, *bounds.min_pixels);
    EXPECT_LE(got.rows.rows() * 784, *bounds.max_pixels);
  }
  EXPECT_EQ(must(with_bounds(preprocessor_, {})), preprocessor_);
  // What is said must fit what is not said.
  for (const PixelBounds& wrong : {PixelBounds{.min_pixels = 0, .max_pixels = {}},
                                   {.min_pixels = -5, .max_pixels = {}},
                                   {.min_pixels = {}, .max_pixels = 100},
                                   {.min_pixels = preprocessor_.max_pixels + 1, .max_pixels = {}},
                                   {.min_pixels = 1, .max_pixels = 783},
                                   {.min_pixels = 1, .max_pixels = INT64_MAX}}) {
    const auto refused = encoder_.plan(picture, wrong);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr("max_pixels"));
  }
  EXPECT_EQ(must(encoder_.plan(picture, {.min_pixels = 1, .max_pixels = 784})).rows, 1);
}

TEST_F(EncoderTest, ThePlanIsWhatEncodingGivesAndOpensNoDecoder) {
  const std::vector<std::span<const std::byte>> picture{file("scene-20.png")};
  const PicturePlan plan = encoder_.plan(picture).value();
  EXPECT_EQ(stats_.decodes, 0);
  const EncodedPicture out = encoder_.encode(picture).value();
  EXPECT_EQ(plan.grid, out.grid);
  EXPECT_EQ(plan.rows, out.rows.rows());
  EXPECT_EQ(out.rows.cols(), checkpoint_.config().vision.hidden_size);
  EXPECT_EQ(stats_.decodes, 1);
}

TEST_F(EncoderTest, AVideoIsItsFramePairs) {
  std::vector<std::span<const std::byte>> frames;
  for (int i = 0; i < 4; ++i) frames.push_back(file("video-frame-" + std::to_string(i) + ".png"));
  const EncodedPicture four = encoder_.encode(frames).value();
  EXPECT_EQ(four.grid.t, 2);
  frames.pop_back();  // the last frame of an odd count is repeated
  EXPECT_EQ(encoder_.encode(frames).value().grid.t, 2);
  // A still picture is its frame twice: a video of the same frame twice has the same rows.
  const std::vector<std::span<const std::byte>> still{frames[0]}, twice{frames[0], frames[0]};
  EXPECT_TRUE(same_bits(encoder_.encode(still).value().rows, encoder_.encode(twice).value().rows));
  // Frame pairs do not see each other.
  const std::vector<std::span<const std::byte>> first{frames[0], frames[1]};
  const Matrix pair = encoder_.encode(first).value().rows;
  EXPECT_EQ(std::memcmp(pair.data(), four.rows.data(), static_cast<std::size_t>(pair.size()) * sizeof(float)), 0);
}

TEST_F(EncoderTest, BadInputIsNamed) {
  EXPECT_THAT(encoder_.encode({}).error().message, HasSubstr("no file"));
  const std::vector<std::span<const std::byte>> mixed{file("scene-00.png"), file("scene-16.png")};
  EXPECT_THAT(encoder_.encode(mixed).error().message, HasSubstr("frame 2 is 448 x 448"));
  const std::vector<std::byte> noise(100, std::byte{7});
  const std::vector<std::span<const std::byte>> foreign{noise};
  EXPECT_FALSE(encoder_.encode(foreign).has_value());
  const std::vector<std::span<const std::byte>> cut{file("scene-03.jpg").first(9000)};
  const auto truncated = encoder_.encode(cut);
  ASSERT_FALSE(truncated.has_value());
  EXPECT_EQ(truncated.error().code, Code::kDataLoss);
  const Encoder small(*model_, *layout_, preprocessor_, threads_, {.max_pixels = 1000}, &stats_);
  const std::vector<std::span<const std::byte>> large{file("scene-00.png")};
  const std::int64_t decodes = stats_.decodes;
  const auto refused = small.encode(large);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("at most 1000 pixels"));
  const Encoder brief(*model_, *layout_, preprocessor_, threads_, {.max_bytes = 99}, &stats_);
  EXPECT_THAT(brief.encode(large).error().message, HasSubstr("at most 99 bytes"));
  EXPECT_EQ(stats_.decodes, decodes);
}

}  // namespace
}  // namespace chiasm
