#include "language/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class AgreementTest : public testing::Test {
 protected:
  Status check(const ModelConfig& config) const {
    return check_tokenizer(tokenizer_, must(standard_chat_template(tokenizer_)).tokens, config, "x/config.json");
  }
  Tokenizer tokenizer_ = must(Tokenizer::load(toytown_dir()));
  ModelConfig config_ = must(load_model_config(toytown_dir()));
};

TEST_F(AgreementTest, TheDemoModelAgrees) { EXPECT_TRUE(check(config_)); }

TEST_F(AgreementTest, EveryTokenHasARow) {
  config_.text.vocab_size = tokenizer_.size();
  EXPECT_TRUE(check(config_));
  --config_.text.vocab_size;
  const Status added = check(config_);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(added.error().message,
              AllOf(HasSubstr(tokenizer_.source() + ": field 'added_tokens'"), HasSubstr("'<|video_pad|>' has id 912"),
                    HasSubstr("below 912"), HasSubstr("'vocab_size' of x/config.json")));
}

// The largest id may be a base token's.
TEST_F(AgreementTest, ABaseTokenWithoutARowIsOfTheVocabulary) {
  std::string json = must(read_text_file(toytown_dir() / "tokenizer.json", 1 << 24));
  const std::size_t at = json.find("\"vocab\": {") + 10;
  json.insert(at, "\"\\u0121\\u0121\\u0121zz\": 1088,");
  const Tokenizer larger = must(Tokenizer::parse(json, "t.json"));
  const Status base = check_tokenizer(larger, must(standard_chat_template(larger)).tokens, config_, "x/config.json");
  ASSERT_FALSE(base);
  EXPECT_THAT(base.error().message, AllOf(HasSubstr("t.json: field 'model.vocab'"), HasSubstr("has id 1088")));
}

TEST_F(AgreementTest, TheTokensOfVisionAreThoseOfTheConfig) {
  struct Case {
    std::string field, token;
    std::int64_t ModelConfig::* id;
  };
  for (const auto& [field, token, id] :
       {Case{"vision_start_token_id", "<|vision_start|>", &ModelConfig::vision_start_token_id},
        Case{"vision_end_token_id", "<|vision_end|>", &ModelConfig::vision_end_token_id},
        Case{"image_token_id", "<|image_pad|>", &ModelConfig::image_token_id},
        Case{"video_token_id", "<|video_pad|>", &ModelConfig::video_token_id}}) {
    ModelConfig other = config_;
    other.*id = 5;
    const Status status = check(other);
    ASSERT_FALSE(status) << field;
    EXPECT_EQ(status.error().code, Code::kFailedPrecondition);
    EXPECT_THAT(status.error().message, AllOf(HasSubstr("x/config.json: field '" + field + "'"), HasSubstr(token),
                                              HasSubstr(fmt::format("expected {}", config_.*id)), HasSubstr("got 5"),
                                              HasSubstr("tokenizer.json")));
    other.*id = -1;
    EXPECT_TRUE(check(other)) << field;  // not in the file
  }
}

TEST_F(AgreementTest, NeglectedFieldsAreThoseThatChangeAnswers) {
  const auto neglected = [&](std::string_view json) {
    return neglected_fields(must(parse_generation_config(json, "g.json", config_)));
  };
  EXPECT_THAT(neglected(R"({"eos_token_id": 1, "do_sample": true, "temperature": 0.5, "top_k": 1, "top_p": 0.1,
                            "repetition_penalty": 1.1, "pad_token_id": 1, "bos_token_id": 1, "_from_model_config": true,
                            "transformers_version": "4.45.0", "use_cache": true, "output_scores": false,
                            "output_hidden_states": false, "return_dict_in_generate": false})"),
              IsEmpty());
  EXPECT_THAT(neglected(R"({"suppress_tokens": [3], "use_cache": true, "no_repeat_ngram_size": 2, "invented": 1})"),
              ElementsAre("suppress_tokens", "no_repeat_ngram_size", "invented"));
  EXPECT_THAT(neglected_fields(must(load_generation_config(toytown_dir(), config_))), IsEmpty());
}

}  // namespace
}  // namespace chiasm
