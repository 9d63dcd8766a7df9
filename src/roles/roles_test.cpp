// Both sides over the demo checkpoint, from picture files to answers, against what Hugging Face transformers gave
// (models/toytown/eval/truth.json, tests/goldens/toytown/reference.safetensors).
#include <cstdlib>
#include <filesystem>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "features/compare.h"
#include "roles/language_side.h"
#include "roles/vision_side.h"
#include "tensor/safetensors.h"

namespace chiasm {
namespace {

// A picture file in memory, as the sides take it.
struct Picture {
  std::vector<std::byte> bytes;
  std::vector<std::span<const std::byte>> files;
  explicit Picture(const std::filesystem::path& path) : bytes(read_file(path, 1 << 24).value()), files{bytes} {}
  Picture(const Picture&) = delete;
  Picture& operator=(const Picture&) = delete;
};

// Relative L2 to the reference's values.
double distance_of(const Matrix& got, std::span<const float> want) {
  return must(drift_of({want.data(), got.rows(), got.cols(), got.cols()}, got.view())).relative_l2;
}

class RolesTest : public testing::Test {
 protected:
  // The digest cache of whoever runs the tests stays out of it.
  void SetUp() override { ::setenv("XDG_CACHE_HOME", (folder_.path() / "cache").c_str(), 1); }

  std::unique_ptr<VisionSide> vision(bool disk = false) {
    VisionSideOptions options;
    options.model = toytown_dir();
    if (disk) options.features = folder_.path() / "features";
    return must(VisionSide::open(options, threads_));
  }
  std::unique_ptr<LanguageSide> language() {
    LanguageSideOptions options;
    options.model = toytown_dir();
    return must(LanguageSide::open(options, threads_));
  }
  static SeenPicture look(VisionSide& side, const Picture& picture) {
    return must(side.look(picture.files, Deadline::max()));
  }
  static Chat chat_of(std::vector<std::shared_ptr<const Feature>> images, std::string question) {
    ChatMessage user{"user", {}};
    for (std::size_t i = 0; i < images.size(); ++i) user.parts.push_back(ChatPart::image());
    user.parts.push_back(ChatPart::of_text(std::move(question)));
    return {{user}, std::move(images), {}};
  }

  ThreadPool threads_{2};
  TemporaryFolder folder_;
};

TEST_F(RolesTest, EveryReferenceAnswerIsTheSame) {
  const Json truth = load_json(toytown_dir() / "eval" / "truth.json");
  const auto eye = vision();
  const auto mind = language();
  std::size_t pictures = 0;
  for (const JsonValue record : must(truth.root().elements())) {
    const std::string name(record.at("image").value().string().value());
    SCOPED_TRACE(name);
    const JsonValue reference = record.at("reference").value();
    const SeenPicture seen = look(*eye, Picture(toytown_dir() / "eval" / name));
    EXPECT_THAT(seen.feature->meta.grid_thw,
                testing::ElementsAreArray(integers<std::int64_t>(reference.at("grid_thw").value())));
    const Chat chat = chat_of({seen.feature}, std::string(reference.at("question").value().string().value()));
    const LanguagePrompt prompt = mind->prompt_of(chat).value();
    EXPECT_THAT(prompt.token_ids, testing::ElementsAreArray(integers<std::int64_t>(reference.at("input_ids").value())));
    EXPECT_EQ(prompt.positions.rope_delta, reference.at("rope_delta").value().integer().value());
    const Completion answer = mind->ask({&chat, 1}, {.max_tokens = 40}).value().front();
    EXPECT_THAT(answer.token_ids,
                testing::ElementsAreArray(integers<std::int64_t>(reference.at("generated_ids").value())));
    EXPECT_EQ(answer.text, reference.at("generated").value().string().value());
    ++pictures;
  }
  EXPECT_EQ(pictures, 24U);
}

TEST_F(RolesTest, FeaturesFromFilesMatchTheReference) {
  const SafetensorsFile reference = SafetensorsFile::open(goldens_dir() / "toytown" / "reference.safetensors").value();
  const auto eye = vision();
  int pictures = 0;
  for (const auto& [name, info] : reference.view().tensors()) {
    const auto slash = name.find("/image_embeds");
    if (slash == std::string::npos) continue;
    const std::string file = name.substr(0, slash);
    if (!file.starts_with("scene-")) continue;  // stages of one picture are the models' test
    const SeenPicture seen = look(*eye, Picture(toytown_dir() / "eval" / file));
    const std::vector<float> want = to_f32(reference.view().tensor(name).value()).value();
    ASSERT_EQ(static_cast<std::size_t>(seen.feature->rows.size()), want.size()) << file;
    // The two JPEG libraries may differ by a level here and there; PNG pixels are the same.
    const double tolerance = file.ends_with(".jpg") ? 2e-2 : 2e-3;
    const double error = distance_of(seen.feature->rows, want);
    EXPECT_LE(error, tolerance) << file;
    std::printf("%s: relative L2 of image_embeds %.2e (tolerance %.0e)\n", file.c_str(), error, tolerance);
    ++pictures;
  }
  EXPECT_GE(pictures, 8);
}

TEST_F(RolesTest, AKnownPictureOpensNoDecoderAndNoEncoder) {
  const Picture picture(toytown_dir() / "eval" / "scene-03.jpg");
  std::vector<float> fresh;
  {
    const auto eye = vision(true);
    const SeenPicture first = look(*eye, picture), second = look(*eye, picture);
    EXPECT_EQ(first.source, Source::kEncoded);
    EXPECT_GT(first.times.encode_ms, 0);
    EXPECT_EQ(second.source, Source::kMemory);
    EXPECT_EQ(second.times.total_ms(), 0);
    EXPECT_EQ(eye->codec_stats().decodes, 1);
    fresh.assign(first.feature->rows.data(), first.feature->rows.data() + first.feature->rows.size());
  }
  const auto eye = vision(true);  // as another process would
  const SeenPicture known = look(*eye, picture);
  EXPECT_EQ(known.source, Source::kDisk);
  EXPECT_EQ(eye->codec_stats().decodes, 0);
  EXPECT_EQ(eye->codec_stats().probes, 0);
  EXPECT_EQ(eye->weight_bytes(), 0U);  // the vision weights were never loaded
  EXPECT_EQ(fresh,
            std::vector<float>(known.feature->rows.data(), known.feature->rows.data() + known.feature->rows.size()));
}

TEST_F(RolesTest, OnePictureAskedForByManyIsEncodedOnce) {
  const Picture picture(toytown_dir() / "eval" / "scene-00.png");
  const auto eye = vision();
  std::vector<std::thread> askers;
  for (int i = 0; i < 6; ++i) askers.emplace_back([&] { look(*eye, picture); });
  for (auto& asker : askers) asker.join();
  EXPECT_EQ(eye->codec_stats().decodes, 1);
  EXPECT_EQ(eye->source().counters().encoded, 1U);
}

TEST_F(RolesTest, WhereFeaturesCameFromNeverChangesTheAnswer) {
  const Picture one(toytown_dir() / "eval" / "scene-01.png"), two(toytown_dir() / "eval" / "scene-07.jpg");
  const auto mind = language();
  std::vector<std::vector<std::int32_t>> answers;
  for (int run = 0; run < 2; ++run) {
    const auto eye = vision(true);
    for (int time = 0; time < 2; ++time) {
      const auto a = look(*eye, one), b = look(*eye, two);
      const std::vector<Chat> chats{chat_of({a.feature, b.feature}, "Which picture shows night?"),
                                    chat_of({a.feature, b.feature}, "How many trees are in the second picture?")};
      for (auto& answer : must(mind->ask(chats, {}))) answers.push_back(answer.token_ids);
    }
  }
  for (std::size_t i = 2; i < answers.size(); ++i) EXPECT_EQ(answers[i], answers[i % 2]);
}

TEST_F(RolesTest, AForeignFeatureIsRefusedNamingBothDigests) {
  const Picture picture(toytown_dir() / "eval" / "scene-00.png");
  const auto eye = vision();
  const auto mind = language();
  const SeenPicture seen = look(*eye, picture);
  auto foreign = std::make_shared<Feature>();
  foreign->meta = seen.feature->meta;
  foreign->meta.vision_digest.bytes[0] ^= 1;
  foreign->rows = Matrix(seen.feature->rows.rows(), seen.feature->rows.cols());
  std::copy_n(seen.feature->rows.data(), seen.feature->rows.size(), foreign->rows.data());
  const Chat chat = chat_of({foreign}, "Is it day or night?");
  const auto refused = mind->ask({&chat, 1}, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, testing::HasSubstr(foreign->meta.vision_digest.hex()));
  EXPECT_THAT(refused.error().message, testing::HasSubstr(must(mind->vision_digest()).hex()));
}

TEST_F(RolesTest, AFeatureFileStandsForItsPicture) {
  const Picture picture(toytown_dir() / "eval" / "scene-00.png");
  const auto eye = vision();
  const SeenPicture seen = look(*eye, picture);
  const auto file = folder_.path() / "carried.safetensors";
  must(save_feature(file, *seen.feature, DType::kF32));
  const auto other = vision();
  const SeenPicture recalled = must(other->recall(file));
  EXPECT_EQ(recalled.source, Source::kDisk);
  EXPECT_EQ(recalled.feature->meta, seen.feature->meta);
  EXPECT_EQ(distance_of(recalled.feature->rows,
                        {seen.feature->rows.data(), static_cast<std::size_t>(seen.feature->rows.size())}),
            0);
  EXPECT_EQ(other->weight_bytes(), 0U);

  Feature foreign{seen.feature->meta, Matrix(seen.feature->rows.rows(), seen.feature->rows.cols())};
  foreign.meta.vision_digest.bytes[0] ^= 1;
  std::copy_n(seen.feature->rows.data(), seen.feature->rows.size(), foreign.rows.data());
  must(save_feature(file, foreign, DType::kF32));
  const auto refused = other->recall(file);
  ASSERT_FALSE(refused);
  for (const Digest& digest : {foreign.meta.vision_digest, other->vision_digest()})
    EXPECT_THAT(refused.error().message, testing::HasSubstr(digest.hex()));
}

TEST_F(RolesTest, OneVisionDigestOnBothSides) {
  EXPECT_EQ(vision()->vision_digest(), must(language()->vision_digest()));
}

}  // namespace
}  // namespace chiasm
