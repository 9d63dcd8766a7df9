// A chat about one picture of 32 x 32 patches, its features made up: how long it takes does not depend on what they
// say.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/stopwatch.h"
#include "base/thread_pool.h"
#include "cases.h"
#include "kernels/ops.h"
#include "language/engine.h"
#include "models/language_model.h"
#include "operands.h"
#include "steps.h"
#include "text/chat_prompt.h"

namespace chiasm::bench {

class Conversation {
 public:
  Conversation(const Model& model, Precision precision, ThreadPool& threads) : ops_(make_cpu_ops(threads)) {
    const Stopwatch watch;
    {
      const Checkpoint checkpoint = must(Checkpoint::open(model.dir, Role::kLanguage));
      config = checkpoint.config();
      language = must(load_language_model(checkpoint, *ops_, precision));
    }
    tokenizer_ = std::make_unique<const Tokenizer>(must(Tokenizer::load(model.dir)));
    engine = must(Engine::create(*language, *tokenizer_, *ops_));
    load_ms = watch.ms();
    layout_ = must(make_layout(config));
    const std::int64_t rows = 1024 / config.vision.merge_unit();
    Matrix values = random_matrix(rows, config.text.hidden_size, 11);
    for (std::int64_t i = 0; i < values.size(); ++i) values.data()[i] *= 0.1F;
    feature_ = std::make_shared<const Feature>(make_feature(FeatureKey{}, {1, 32, 32}, "bench", std::move(values)));
  }

  GenerationRequest request(const std::string& question, std::int64_t max_tokens) const {
    const ChatTemplate chat = must(standard_chat_template(*tokenizer_));
    const ChatMessage message{"user", {ChatPart::image(), ChatPart::of_text(question)}};
    GenerationRequest out;
    out.prompt = must(assemble_prompt(tokenize(*tokenizer_, must(render_chat(chat, {&message, 1}))), {&feature_, 1}, {},
                                      config, *layout_, feature_->meta.vision_digest));
    out.max_tokens = max_tokens;  // and no stop tokens: every answer is this long
    return out;
  }

  ModelConfig config;
  std::unique_ptr<const LanguageModel> language;
  std::unique_ptr<Engine> engine;
  double load_ms = 0;

 private:
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const ModelLayout> layout_;
  std::shared_ptr<const Feature> feature_;
};

}  // namespace chiasm::bench
