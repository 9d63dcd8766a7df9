#include "roles/language_side.h"

#include <utility>

#include <fmt/format.h>

#include "kernels/devices.h"
#include "language/agreement.h"
#include "models/weight_cache.h"

namespace chiasm {

Result<std::unique_ptr<LanguageSide>> LanguageSide::open(const LanguageSideOptions& options, ThreadPool& threads) {
  std::unique_ptr<LanguageSide> out(new LanguageSide(options, threads));
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(options.model, Role::kLanguage));
  RETURN_IF_ERROR(checkpoint.precision(Role::kLanguage, options.precision));
  out->checkpoint_config_ = checkpoint.config();
  ASSIGN_OR_RETURN(out->generation_config_, load_generation_config(options.model, checkpoint.config()));
  const std::string generation_source = (options.model / "generation_config.json").string();
  if (auto status = check_sampling(SamplingParams::from(out->generation_config_)); !status)
    return fail_in(generation_source, status.error());
  ASSIGN_OR_RETURN(out->layout_, make_layout(checkpoint.config()));
  ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::load(options.model));
  out->tokenizer_ = std::make_unique<const Tokenizer>(std::move(tokenizer));
  ASSIGN_OR_RETURN(out->chat_template_, load_chat_template(options.model, *out->tokenizer_));
  RETURN_IF_ERROR(check_tokenizer(*out->tokenizer_, out->chat_template_.tokens, checkpoint.config(),
                                  (options.model / "config.json").string()));
  out->checkpoint_.emplace(std::move(checkpoint));
  const std::vector<std::string> neglected = neglected_fields(out->generation_config_);
  if (!neglected.empty() && options.on_warning)
    options.on_warning(fmt::format("{}: {} {} not used", generation_source, fmt::join(neglected, ", "),
                                   neglected.size() == 1 ? "is" : "are"));
  return out;
}

Status LanguageSide::load() {
  const std::lock_guard lock(load_mutex_);
  if (engine_ != nullptr) return {};
  if (options_.on_load) options_.on_load(false);
  if (ops_ == nullptr) {
    ASSIGN_OR_RETURN(ops_, make_ops(options_.device, threads_));
  }
  if (model_ == nullptr) {
    std::optional<WeightCache> cache;
    if (options_.weights)
      cache.emplace(WeightCacheOptions{.dir = *options_.weights, .warn = options_.on_warning}, threads_);
    ASSIGN_OR_RETURN(model_, load_language_model(*checkpoint_, *ops_, options_.precision, cache ? &*cache : nullptr));
    checkpoint_.reset();
  }
  weight_bytes_ = model_->weight_bytes();
  ASSIGN_OR_RETURN(engine_, Engine::create(*model_, *tokenizer_, *ops_, options_.engine));
  loaded_ = engine_.get();
  if (options_.on_load) options_.on_load(true);
  return {};
}

Result<std::vector<std::shared_ptr<Generation>>> LanguageSide::submit(std::vector<GenerationRequest> requests,
                                                                      OnEventOf on_event) {
  Engine* const engine = loaded_;
  if (engine == nullptr) return fail(Code::kUnavailable, "the language model is not loaded");
  return engine->submit_all(std::move(requests), std::move(on_event));
}

void LanguageSide::close() {
  if (Engine* const engine = loaded_) engine->close();
}

EngineStatus LanguageSide::status() const {
  const Engine* const engine = loaded_;
  return engine == nullptr ? EngineStatus{} : engine->status();
}

std::int64_t LanguageSide::capacity() const {
  const Engine* const engine = loaded_;
  return engine == nullptr ? 0 : engine->capacity();
}

Result<Digest> LanguageSide::vision_digest() const {
  const std::lock_guard lock(digest_mutex_);
  if (!vision_digest_) {
    ASSIGN_OR_RETURN(vision_digest_, vision_digest_as(options_.model, options_.vision_precision));
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
  RETURN_IF_ERROR(check_sampling(options.sampling));  // of all questions: no one of them is at fault
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
  return run(requests, on_text);
}

Result<std::vector<Completion>> LanguageSide::run(std::span<const GenerationRequest> requests, const OnText& on_text) {
  RETURN_IF_ERROR(check_requests(requests, checkpoint_config_.text));
  RETURN_IF_ERROR(load());
  return engine_->run(requests, on_text);
}

}  // namespace chiasm
