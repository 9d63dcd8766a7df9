// The language side of a checkpoint: chats and features in, answers out. No pixel and no vision weight is touched.
//
// Thread contract: one ask() at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "language/engine.h"
#include "models/checkpoint.h"
#include "text/chat_prompt.h"
#include "text/tokenizer.h"

namespace chiasm {

struct LanguageSideOptions {
  std::filesystem::path model;
  EngineOptions engine;
  std::vector<Digest> accepted_vision_digests;  // beside the checkpoint's own
};

// One chat to be continued by the assistant. Pictures and videos are named by their order in the messages.
struct Chat {
  std::vector<ChatMessage> messages;
  std::vector<std::shared_ptr<const Feature>> images, videos;
};

struct AnswerOptions {
  SamplingParams sampling;
  std::int64_t max_tokens = 256;
  std::int64_t logprobs = -1;  // -1: none
};

class LanguageSide {
 public:
  static Result<std::unique_ptr<LanguageSide>> open(const LanguageSideOptions& options, ThreadPool& threads);

  const ModelConfig& config() const { return checkpoint_config_; }
  const GenerationConfig& generation_config() const { return generation_config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // Of the vision encoder whose features this side takes. A whole checkpoint's is made when it is first asked for:
  // loading reads no vision bytes.
  Result<Digest> vision_digest() const;
  const ModelLayout& layout() const { return *layout_; }
  std::uint64_t weight_bytes() const { return model_->weight_bytes(); }

  // The prompt that a chat becomes.
  Result<LanguagePrompt> prompt_of(const Chat& chat) const;

  // Answers to all chats in one batch over what they share from the start. Stop tokens are generation_config.json's.
  Result<std::vector<Completion>> ask(std::span<const Chat> chats, const AnswerOptions& options,
                                      const OnText& on_text = nullptr);

  // The engine as it is, for prompts made elsewhere.
  Result<std::vector<Completion>> run(std::span<const GenerationRequest> requests, const OnText& on_text = nullptr) {
    return engine_->run(requests, on_text);
  }

 private:
  LanguageSide() = default;

  LanguageSideOptions options_;
  ModelConfig checkpoint_config_;
  GenerationConfig generation_config_;
  mutable std::mutex digest_mutex_;
  mutable std::optional<Digest> vision_digest_;
  std::unique_ptr<const ModelLayout> layout_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  ChatTemplate chat_template_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<const LanguageModel> model_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace chiasm
