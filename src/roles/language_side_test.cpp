// Opening a folder for language: what is read, what is refused, and when the weights come. The answers themselves are
// the other files' matter.
#include "roles/language_side.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"
#include "tensor/safetensors.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class LanguageSideTest : public testing::Test {
 protected:
  // The demo checkpoint, its small files as copies that a test may change.
  void SetUp() override {
    ::setenv("XDG_CACHE_HOME", (folder_.path() / "cache").c_str(), 1);
    fs::create_directory(model());
    for (const fs::directory_entry& entry : fs::directory_iterator(toytown_dir())) {
      const fs::path to = model() / entry.path().filename();
      if (entry.path().extension() == ".safetensors") {
        fs::create_symlink(entry.path(), to);
      } else if (entry.is_regular_file()) {
        fs::copy_file(entry.path(), to);
      }
    }
  }

  fs::path model() const { return folder_.path() / "model"; }
  std::string file(const std::string& name) const { return (model() / name).string(); }

  void replace(const std::string& name, const std::string& what, const std::string& by) const {
    std::string text = must(read_text_file(model() / name, 1 << 24));
    const std::size_t at = text.find(what);
    ASSERT_NE(at, std::string::npos) << what;
    folder_.write("model/" + name, text.replace(at, what.size(), by));
  }

  Result<std::unique_ptr<LanguageSide>> open() {
    LanguageSideOptions options;
    options.model = model();
    options.on_warning = [&](std::string_view warning) { warnings_.emplace_back(warning); };
    options.on_load = [&](bool loaded) { loads_.push_back(loaded); };
    return LanguageSide::open(options, threads_);
  }
  std::string error_of_open() {
    const auto side = open();
    return side ? "no error" : side.error().message;
  }

  static Chat chat(std::string question) { return {{{"user", {ChatPart::of_text(std::move(question))}}}, {}, {}}; }

  ThreadPool threads_{2};
  TemporaryFolder folder_;
  std::vector<std::string> warnings_;
  std::vector<bool> loads_;
};

TEST_F(LanguageSideTest, TheFirstQuestionBringsTheWeights) {
  const auto side = must(open());
  EXPECT_EQ(side->weight_bytes(), 0U);
  EXPECT_GT(must(side->prompt_of(chat("Day or night?"))).size(), 5);  // a prompt needs none
  EXPECT_EQ(side->config().text.vocab_size, 1088);
  EXPECT_THAT(loads_, IsEmpty());
  const Chat question = chat("Day or night?");
  must(side->ask({&question, 1}, {.max_tokens = 1}));
  EXPECT_THAT(loads_, ElementsAre(false, true));
  EXPECT_GT(side->weight_bytes(), std::uint64_t{5} << 20);
  ASSERT_TRUE(side->load());
  must(side->ask({&question, 1}, {.max_tokens = 1}));
  EXPECT_EQ(loads_.size(), 2U);
}

TEST_F(LanguageSideTest, RunBringsThemToo) {
  const auto side = must(open());
  GenerationRequest request;
  request.prompt = must(side->prompt_of(chat("Day or night?")));
  request.max_tokens = 1;
  EXPECT_EQ(must(side->run({&request, 1})).size(), 1U);
  EXPECT_THAT(loads_, ElementsAre(false, true));
}

TEST_F(LanguageSideTest, ManyThreadsLoadOnce) {
  const auto side = must(open());
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { good += side->load().has_value() ? 1 : 0; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 4);
  EXPECT_THAT(loads_, ElementsAre(false, true));
}

TEST_F(LanguageSideTest, WhatIsWrongWithAQuestionIsFoundWithoutWeights) {
  const auto side = must(open());
  const std::vector<Chat> chats{chat("Day or night?"), chat(std::string(6000, 'x'))};
  EXPECT_THAT(side->ask(chats, {}).error().message, AllOf(HasSubstr("question 2: "), HasSubstr("position_embeddings")));
  // Parameters are those of all questions: no one of them is at fault.
  EXPECT_THAT(side->ask({chats.data(), 1}, {.sampling = {.top_p = 7}}).error().message,
              testing::StartsWith("top_p: expected"));
  EXPECT_THAT(side->ask({chats.data(), 1}, {.max_tokens = 0}).error().message, HasSubstr("max_tokens"));
  EXPECT_THAT(loads_, IsEmpty());
}

TEST_F(LanguageSideTest, AnAnswerMayBeAsLongAsTheContext) {
  replace("config.json", "\"max_position_embeddings\": 4096", "\"max_position_embeddings\": 64");
  replace("generation_config.json", "901,\n    899", "905");
  const auto side = must(open());
  const Chat question = chat("Day or night?");
  const Completion answer = must(side->ask({&question, 1}, {.max_tokens = 300000})).front();
  EXPECT_EQ(answer.prompt_tokens + static_cast<std::int64_t>(answer.token_ids.size()), 64);
  EXPECT_TRUE(answer.context_full);
}

TEST_F(LanguageSideTest, SamplingOutOfRangeIsTheFilesFault) {
  for (const auto& [field, value] : {std::pair{"repetition_penalty", "200.0"}, {"temperature", "500.0"}}) {
    folder_.write("model/generation_config.json",
                  fmt::format(R"({{"do_sample": true, "eos_token_id": 901, "{}": {}}})", field, value));
    const auto side = open();
    ASSERT_FALSE(side) << field;
    EXPECT_EQ(side.error().code, Code::kInvalidArgument);
    EXPECT_THAT(side.error().message, AllOf(HasSubstr(file("generation_config.json")), HasSubstr(field)));
    EXPECT_THAT(side.error().message, testing::Not(HasSubstr("question")));
  }
}

TEST_F(LanguageSideTest, ATokenizerOfAnotherModelIsRefused) {
  replace("config.json", "\"video_token_id\": 912", "\"video_token_id\": 907");
  EXPECT_THAT(error_of_open(), AllOf(HasSubstr(file("config.json") + ": field 'video_token_id'"), HasSubstr("912"),
                                     HasSubstr(file("tokenizer.json"))));
  replace("config.json", "\"video_token_id\": 907", "\"video_token_id\": 912");
  replace("config.json", "\"vision_start_token_id\": 908", "\"vision_start_token_id\": 3");
  EXPECT_THAT(error_of_open(), HasSubstr("field 'vision_start_token_id'"));
  replace("config.json", "\"vision_start_token_id\": 3", "\"vision_start_token_id\": 908");
  replace("tokenizer.json", "\"id\": 907", "\"id\": 5000");
  EXPECT_THAT(error_of_open(), AllOf(HasSubstr(file("tokenizer.json") + ": field 'added_tokens'"), HasSubstr("5000"),
                                     HasSubstr("1088"), HasSubstr("vocab_size")));
}

TEST_F(LanguageSideTest, AnAbsentTokenizerIsFoundAtOnce) {
  fs::remove(model() / "tokenizer.json");
  folder_.write("model/vocab.json", "{}");
  folder_.write("model/merges.txt", "");
  EXPECT_THAT(error_of_open(), AllOf(HasSubstr(file("tokenizer.json")), HasSubstr("merges.txt"), HasSubstr("hub")));
}

TEST_F(LanguageSideTest, FieldsThatAreNotUsedAreToldOnce) {
  {
    const auto side = must(open());
    ASSERT_TRUE(side->load());
  }
  EXPECT_THAT(warnings_, IsEmpty());
  folder_.write("model/generation_config.json", R"({"suppress_tokens": [1], "eos_token_id": 901, "use_cache": true,
                                                     "no_repeat_ngram_size": 3, "transformers_version": "4.45.0"})");
  const auto side = must(open());
  EXPECT_THAT(warnings_,
              ElementsAre(file("generation_config.json") + ": suppress_tokens, no_repeat_ngram_size are not used"));
  ASSERT_TRUE(side->load());
  EXPECT_EQ(warnings_.size(), 1U);
  LanguageSideOptions silent;
  silent.model = model();
  EXPECT_TRUE(LanguageSide::open(silent, threads_));
}

// One weight of the last norm turned to NaN: every logit is.
TEST_F(LanguageSideTest, DamagedWeightsGiveNoAnswer) {
  const std::string name = "model-00002-of-00002.safetensors";
  std::size_t at = 0;
  {
    const SafetensorsFile weights = must(SafetensorsFile::open(toytown_dir() / name));
    const TensorView norm = must(weights.view().tensor("model.norm.weight"));
    at = static_cast<std::size_t>(norm.bytes.data() - weights.file().bytes().data());
  }
  fs::remove(model() / name);
  fs::copy_file(toytown_dir() / name, model() / name);
  {
    std::fstream out(model() / name, std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(static_cast<std::streamoff>(at));
    out.write("\xC0\x7F", 2);  // BF16 NaN
  }
  const auto side = must(open());
  const std::vector<Chat> chats{chat("Day or night?"), chat("How many?")};
  for (const AnswerOptions& options :
       {AnswerOptions{}, AnswerOptions{.sampling = {.temperature = 1, .top_k = 20}, .logprobs = 2}}) {
    const auto answers = side->ask(chats, options);
    ASSERT_FALSE(answers);
    EXPECT_EQ(answers.error().code, Code::kDataLoss);
    EXPECT_THAT(answers.error().message,
                AllOf(HasSubstr("question 1: "), HasSubstr("not finite"), HasSubstr("damaged")));
  }
}

TEST_F(LanguageSideTest, AFailedLoadIsTriedAgain) {
  LanguageSideOptions options;
  options.model = model();
  options.engine.kv_bytes = 5;  // fewer than a block takes
  const auto side = must(LanguageSide::open(options, threads_));
  for (int i = 0; i < 2; ++i) {
    const Status status = side->load();
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().message, HasSubstr("kv_bytes"));
  }
}

}  // namespace
}  // namespace chiasm
