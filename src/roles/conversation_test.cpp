// Conversations of several pictures, videos and turns, from files to answers, against transformers with the positions
// of the original Qwen2-VL code (tests/goldens/toytown/multi.json): all of them alone, and all in one batch.
#include <cmath>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "roles/language_side.h"
#include "roles/vision_side.h"
#include "tensor/safetensors.h"

namespace chiasm {
namespace {

std::string text_at(JsonValue object, std::string_view key) { return std::string(must(must(object.at(key)).string())); }

struct Conversation {
  std::string name;
  Chat chat;
  std::vector<std::int32_t> input_ids, generated_ids;
  std::string generated;
  std::int64_t rope_delta = 0;
};

class ConversationTest : public testing::Test {
 protected:
  void SetUp() override {
    VisionSideOptions vision;
    vision.model = toytown_dir();
    eye_ = must(VisionSide::open(vision, threads_));
    LanguageSideOptions language;
    language.model = toytown_dir();
    mind_ = must(LanguageSide::open(language, threads_));
    const Json json = load_json(goldens_dir() / "toytown" / "multi.json");
    for (const JsonValue record : must(json.root().elements())) conversations_.push_back(read(record));
  }

  Conversation read(JsonValue record) {
    Conversation out;
    out.name = text_at(record, "name");
    out.input_ids = integers<std::int32_t>(must(record.at("input_ids")));
    out.generated_ids = integers<std::int32_t>(must(record.at("generated_ids")));
    out.generated = text_at(record, "generated");
    out.rope_delta = must(must(record.at("rope_delta")).integer());
    for (const JsonValue message : must(must(record.at("messages")).elements())) {
      ChatMessage& said = out.chat.messages.emplace_back(ChatMessage{text_at(message, "role"), {}});
      for (const JsonValue part : must(must(message.at("content")).elements())) {
        const std::string type = text_at(part, "type");
        if (type == "text") {
          said.parts.push_back(ChatPart::of_text(text_at(part, "text")));
        } else if (type == "image") {
          said.parts.push_back(ChatPart::image());
          out.chat.images.push_back(look({text_at(part, "image")}));
        } else {
          std::vector<std::string> frames;
          for (const JsonValue frame : must(must(part.at("frames")).elements()))
            frames.emplace_back(must(frame.string()));
          said.parts.push_back(ChatPart::video());
          out.chat.videos.push_back(look(frames));
        }
      }
    }
    return out;
  }

  std::shared_ptr<const Feature> look(const std::vector<std::string>& names) {
    std::vector<std::vector<std::byte>> bytes;
    for (const std::string& name : names) bytes.push_back(must(read_file(toytown_dir() / "eval" / name, 1 << 24)));
    const std::vector<std::span<const std::byte>> files(bytes.begin(), bytes.end());
    return must(eye_->look(files, kNoDeadline)).feature;
  }

  ThreadPool threads_{2};
  std::unique_ptr<VisionSide> eye_;
  std::unique_ptr<LanguageSide> mind_;
  std::vector<Conversation> conversations_;
};

TEST_F(ConversationTest, PromptsPositionsAndAnswersAreTheReferences) {
  const SafetensorsFile reference = must(SafetensorsFile::open(goldens_dir() / "toytown" / "multi.safetensors"));
  ASSERT_GE(conversations_.size(), 10U);
  std::vector<Chat> chats;
  for (const Conversation& conversation : conversations_) {
    SCOPED_TRACE(conversation.name);
    const LanguagePrompt prompt = must(mind_->prompt_of(conversation.chat));
    EXPECT_EQ(prompt.token_ids, conversation.input_ids);
    EXPECT_EQ(prompt.positions.rope_delta, conversation.rope_delta);
    const TensorView positions = must(reference.view().tensor(conversation.name + "/position_ids"));
    ASSERT_EQ(positions.shape, (Shape{3, prompt.size()}));
    for (std::size_t axis = 0; axis < 3; ++axis)
      EXPECT_EQ(std::memcmp(positions.bytes.data() + axis * prompt.token_ids.size() * 4,
                            prompt.positions.position_ids[axis].data(), prompt.token_ids.size() * 4),
                0)
          << "axis " << axis;
    const Completion answer = must(mind_->ask({&conversation.chat, 1}, {.max_tokens = 40})).front();
    EXPECT_EQ(answer.token_ids, conversation.generated_ids);
    EXPECT_EQ(answer.text, conversation.generated);
    chats.push_back(conversation.chat);
  }
  const std::vector<Completion> together = must(mind_->ask(chats, {.max_tokens = 40}));
  for (std::size_t i = 0; i < chats.size(); ++i)
    EXPECT_EQ(together[i].token_ids, conversations_[i].generated_ids) << conversations_[i].name;
}

// The logits of a conversation's last position, through log-probabilities: differences of logits are differences of
// these.
TEST_F(ConversationTest, LogprobsAreThoseOfTheReferenceLogits) {
  const SafetensorsFile reference = must(SafetensorsFile::open(goldens_dir() / "toytown" / "multi.safetensors"));
  for (const Conversation& conversation : conversations_) {
    const std::vector<float> logits = must(to_f32(must(reference.view().tensor(conversation.name + "/logits"))));
    const Logprobs want = logprobs_of(logits, conversation.generated_ids.front(), 5);
    const Completion answer = must(mind_->ask({&conversation.chat, 1}, {.max_tokens = 1, .logprobs = 5})).front();
    const Logprobs& got = answer.logprobs.front();
    EXPECT_NEAR(got.chosen.logprob, want.chosen.logprob, 1e-3) << conversation.name;
    ASSERT_EQ(got.top.size(), 5U);
    EXPECT_EQ(got.top[0].id, want.top[0].id) << conversation.name;
    EXPECT_NEAR(got.top[1].logprob, want.top[1].logprob, 1e-2) << conversation.name;
  }
}

}  // namespace
}  // namespace chiasm
