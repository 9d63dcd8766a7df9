// A checkpoint of other shapes than the demo model's (grouped queries 4/2, an lm_head of its own, mlp_ratio 2) with
// random weights, against transformers (tests/goldens/random_tiny.*). tools/make_checkpoint.py writes it on the spot.
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "base/test_support.h"
#include "features/compare.h"
#include "models/vision_model.h"
#include "roles/language_side.h"
#include "tensor/safetensors.h"

namespace chiasm {
namespace {

// On one device, and on groups that share the language model: its 4 heads and 2 kv heads among two and four.
class RandomCheckpointTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ::setenv("XDG_CACHE_HOME", (folder_.path() / "cache").c_str(), 1);
    const std::string command = "python3 '" + (source_dir() / "tools" / "make_checkpoint.py").string() + "' '" +
                                model().string() + "' --shape mini --seed 1 --tokenizer '" + toytown_dir().string() +
                                "' > /dev/null";
    ASSERT_EQ(WEXITSTATUS(std::system(command.c_str())), 0) << command;
  }

  std::filesystem::path model() const { return folder_.path() / "mini"; }
  std::vector<float> golden(const std::string& name) const {
    return must(to_f32(must(reference_.view().tensor("mini/" + name))));
  }

  ThreadPool threads_{2};
  TemporaryFolder folder_;
  SafetensorsFile reference_ = must(SafetensorsFile::open(goldens_dir() / "random_tiny.safetensors"));
};

TEST_P(RandomCheckpointTest, FeaturesAndAnswersAreTheReferences) {
  const Json cases = load_json(goldens_dir() / "random_tiny.json");
  const auto ops = make_cpu_ops(threads_);
  const Checkpoint checkpoint = must(Checkpoint::open(model(), Role::kVision));
  const auto eye = must(load_vision_model(checkpoint, *ops));
  LanguageSideOptions options;
  options.model = model();
  options.device = GetParam();
  const auto mind = must(LanguageSide::open(options, threads_));

  std::vector<std::shared_ptr<const Feature>> pictures;
  for (const Grid grid : {Grid{1, 4, 6}, Grid{1, 8, 4}}) {
    const std::string name = "picture-" + std::to_string(pictures.size());
    const std::vector<float> pixels = golden(name + "/pixel_values"), want = golden(name + "/image_embeds");
    auto feature = std::make_shared<Feature>();
    feature->meta.vision_digest = must(mind->vision_digest());
    feature->meta.id.digest.bytes[0] = static_cast<std::uint8_t>(pictures.size());
    feature->meta.grid_thw = {grid.t, grid.h, grid.w};
    const std::int64_t width = eye->config().patch_width();
    feature->rows = must(eye->encode({pixels.data(), grid.patches(), width, width}, {&grid, 1}));
    ASSERT_EQ(static_cast<std::size_t>(feature->rows.size()), want.size());
    const Drift drift = must(drift_of({want.data(), feature->rows.rows(), feature->rows.cols(), feature->rows.cols()},
                                      feature->rows.view()));
    EXPECT_LE(drift.relative_l2, 1e-4) << name;
    pictures.push_back(std::move(feature));
  }

  int checked = 0;
  for (const JsonValue record : must(cases.root().elements())) {
    if (must(must(record.at("checkpoint")).string()) != "mini") continue;
    const std::string name(must(must(record.at("name")).string()));
    SCOPED_TRACE(name);
    // The prompt as token ids: runs of image tokens are the pictures in order.
    LanguagePrompt prompt;
    std::vector<Span> spans;
    for (const std::int32_t token : integers<std::int32_t>(must(record.at("input_ids")))) {
      const bool vision = token == mind->config().image_token_id;
      if (vision && (spans.empty() || !spans.back().vision)) {
        const auto& feature = pictures[prompt.features.size()];
        const auto& [t, h, w] = feature->meta.grid_thw;
        prompt.features.push_back({prompt.size(), feature});
        spans.push_back({.length = 0, .vision = true, .grid = {t, h, w}});
      } else if (!vision && (spans.empty() || spans.back().vision)) {
        spans.push_back({});
      }
      ++spans.back().length;
      prompt.token_ids.push_back(token);
    }
    prompt.positions = mind->layout().position_ids(spans);
    EXPECT_EQ(prompt.positions.rope_delta, must(must(record.at("rope_delta")).integer()));

    GenerationRequest request;
    request.prompt = std::move(prompt);
    const auto want = integers<std::int32_t>(must(record.at("generated_ids")));
    request.max_tokens = static_cast<std::int64_t>(want.size());
    request.logprobs = 3;
    const Completion answer = must(mind->run({&request, 1})).front();
    EXPECT_EQ(answer.token_ids, want);
    const Logprobs first = logprobs_of(golden(name + "/logits"), want.front(), 3);
    EXPECT_NEAR(answer.logprobs.front().chosen.logprob, first.chosen.logprob, 1e-4);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(answer.logprobs.front().top[i].id, first.top[i].id);
    ++checked;
  }
  EXPECT_EQ(checked, 3);
}

INSTANTIATE_TEST_SUITE_P(Devices, RandomCheckpointTest, testing::Values("cpu", "cpu,cpu", "cpu,cpu,cpu,cpu"),
                         [](const auto& device) { return "of" + std::to_string(device.index); });

}  // namespace
}  // namespace chiasm
