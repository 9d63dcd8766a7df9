// The language side of a checkpoint: chats and features in, answers out. No pixel and no vision weight is touched.
//
// Opening reads what is small and holds it against each other, so that a folder that cannot answer is found before time
// is spent on pictures; the weights come with load(), or with the first question.
// Thread contract: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
  std::string device = "cpu";  // devices.h; programs say "auto"
  // Of the matrices, and of those of the encoder whose features it takes; none: as they are stored.
  std::optional<Precision> precision, vision_precision;
  std::optional<std::filesystem::path> weights;  // the folder that keeps rounded ones; none: they are not kept
  EngineOptions engine;
  std::vector<Digest> accepted_vision_digests;       // beside the checkpoint's own
  std::function<void(std::string_view)> on_warning;  // may be null
  // Called with false before the weights are read, with true once they are; may be null.
  std::function<void(bool loaded)> on_load;
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
  // Reads the configs, the tokenizer, the chat template and the headers of the weight files, no weights. Warns of what
  // generation_config.json asks for and does not get. `threads` must outlive the side.
  static Result<std::unique_ptr<LanguageSide>> open(const LanguageSideOptions& options, ThreadPool& threads);

  // Reads the weights, unless they are there. One thread does it when several ask; after an error the next call tries
  // again.
  Status load();

  const ModelConfig& config() const { return checkpoint_config_; }
  const GenerationConfig& generation_config() const { return generation_config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // Of the vision encoder whose features this side takes. A whole checkpoint's is made when it is first asked for:
  // neither opening nor loading reads vision bytes.
  Result<Digest> vision_digest() const;
  const ModelLayout& layout() const { return *layout_; }
  std::uint64_t weight_bytes() const { return weight_bytes_; }  // 0 before they are loaded

  // The prompt that a chat becomes.
  Result<LanguagePrompt> prompt_of(const Chat& chat) const;

  // Answers to all chats in one batch over what they share from the start. Stop tokens are generation_config.json's.
  // What is wrong with a chat or an option is found before the weights are loaded.
  Result<std::vector<Completion>> ask(std::span<const Chat> chats, const AnswerOptions& options,
                                      const OnText& on_text = nullptr);

  // For servers: answers from the engine's thread, as Engine::submit_all. The weights must be loaded.
  Result<std::vector<std::shared_ptr<Generation>>> submit(std::vector<GenerationRequest> requests, OnEventOf on_event);
  // What is asked ends with kUnavailable, once the step that runs is done; nothing can be asked any more.
  void close();
  EngineStatus status() const;    // zeros before the weights are loaded
  std::int64_t capacity() const;  // tokens that prompt and answer may have; 0 before the weights are loaded

  // The engine as it is, for prompts made elsewhere.
  Result<std::vector<Completion>> run(std::span<const GenerationRequest> requests, const OnText& on_text = nullptr);

 private:
  LanguageSide(const LanguageSideOptions& options, ThreadPool& threads) : options_(options), threads_(threads) {}

  const LanguageSideOptions options_;
  ThreadPool& threads_;
  ModelConfig checkpoint_config_;
  GenerationConfig generation_config_;
  mutable std::mutex digest_mutex_;
  mutable std::optional<Digest> vision_digest_;
  std::unique_ptr<const ModelLayout> layout_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  ChatTemplate chat_template_;

  std::mutex load_mutex_;
  std::optional<const Checkpoint> checkpoint_;  // until the weights are loaded
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<const LanguageModel> model_;
  std::unique_ptr<Engine> engine_;
  std::atomic<Engine*> loaded_ = nullptr;  // engine_, once it is there
  std::atomic<std::uint64_t> weight_bytes_ = 0;
};

}  // namespace chiasm
