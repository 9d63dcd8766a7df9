#include "roles/language_side.h"

#include <utility>

namespace chiasm {

Result<std::unique_ptr<LanguageSide>> LanguageSide::open(const LanguageSideOptions& options, ThreadPool& threads) {
  std::unique_ptr<LanguageSide> out(new LanguageSide());
  out->options_ = options;
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(options.model, Role::kLanguage));
  out->checkpoint_config_ = checkpoint.config();
  ASSIGN_OR_RETURN(out->generation_config_, load_generation_config(options.model, checkpoint.config()));
  ASSIGN_OR_RETURN(out->layout_, make_layout(checkpoint.config()));
  ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::load(options.model));
  out->tokenizer_ = std::make_unique<const Tokenizer>(std::move(tokenizer));
  ASSIGN_OR_RETURN(out->chat_template_, load_chat_template(options.model, *out->tokenizer_));
  const ChatTokens& tokens = out->chat_template_.tokens;
  const ModelConfig& config = out->checkpoint_config_;
  if (tokens.image_pad != config.image_token_id || tokens.video_pad != config.video_token_id)
    return fail(
        Code::kFailedPrecondition,
        "{}: tokenizer.json says <|image_pad|> is {} and <|video_pad|> is {}, config.json says image_token_id {} "
        "and video_token_id {}",
        options.model.string(), tokens.image_pad, tokens.video_pad, config.image_token_id, config.video_token_id);
  out->ops_ = make_cpu_ops(threads);
  ASSIGN_OR_RETURN(out->model_, load_language_model(checkpoint, *out->ops_));
  ASSIGN_OR_RETURN(out->engine_, Engine::create(*out->model_, *out->tokenizer_, *out->ops_, options.engine));
  return out;
}

Result<Digest> LanguageSide::vision_digest() const {
  const std::lock_guard lock(digest_mutex_);
  if (!vision_digest_) {
    ASSIGN_OR_RETURN(vision_digest_, vision_digest_of(options_.model));
  }
  return *vision_digest_;
}

Result<LanguagePrompt> LanguageSide::prompt_of(const Chat& chat) const {
  Digest digest;
  if (!chat.images.empty() || !chat.videos.empty()) {
    ASSIGN_OR_RETURN(digest, vision_digest());
  }
  ASSIGN_OR_RETURN(const Prompt prompt, render_chat(chat_template_, chat.messages));
  return assemble_prompt(tokenize(*tokenizer_, prompt), chat.images, chat.videos, checkpoint_config_, *layout_, digest,
                         options_.accepted_vision_digests);
}

Result<std::vector<Completion>> LanguageSide::ask(std::span<const Chat> chats, const AnswerOptions& options,
                                                  const OnText& on_text) {
  std::vector<GenerationRequest> requests;
  for (const Chat& chat : chats) {
    GenerationRequest request;
    ASSIGN_OR_RETURN(request.prompt, prompt_of(chat));
    request.sampling = options.sampling;
    request.max_tokens = options.max_tokens;
    request.logprobs = options.logprobs;
    request.stop_token_ids = generation_config_.eos_token_id;
    requests.push_back(std::move(request));
  }
  return engine_->run(requests, on_text);
}

}  // namespace chiasm
