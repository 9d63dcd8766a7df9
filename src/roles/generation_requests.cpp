#include "roles/generation_requests.h"

#include <algorithm>
#include <limits>

#include "base/secret.h"

namespace chiasm {
namespace {

constexpr std::size_t kCompiledSchemas = 64;
constexpr const char* kAnyObject = "";  // the key of json_object among the schemas, none of which is empty

std::uint64_t random_seed() { return std::stoull(random_hex(16), nullptr, 16); }

tl::unexpected<ApiError> refuse(ErrorKind kind, std::string message, std::string param) {
  return tl::unexpected(ApiError{kind, std::move(message), std::move(param)});
}

}  // namespace

ApiResult<std::shared_ptr<const TokenConstraint>> GenerationRequests::constraint(const ResponseFormat& format) {
  if (format.kind == ResponseFormat::Kind::kText) return nullptr;
  const std::string key = format.kind == ResponseFormat::Kind::kJsonObject ? kAnyObject : format.schema;
  std::shared_ptr<const ConstraintVocabulary> vocabulary;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = compiled_.begin(); it != compiled_.end(); ++it) {
      if (it->first != key) continue;
      compiled_.splice(compiled_.begin(), compiled_, it);
      return compiled_.front().second;
    }
    if (vocabulary_ == nullptr)
      vocabulary_ = ConstraintVocabulary::build(side_.tokenizer(), side_.config().text.vocab_size);
    vocabulary = vocabulary_;
  }
  std::shared_ptr<const TokenConstraint> out;
  if (format.kind == ResponseFormat::Kind::kJsonObject) {
    out = json_object_constraint(vocabulary);
  } else {
    auto compiled = json_schema_constraint(vocabulary, format.schema);
    if (!compiled) {
      const ErrorKind kind =
          compiled.error().code == Code::kUnimplemented ? ErrorKind::kUnsupported : ErrorKind::kInvalidRequest;
      return refuse(kind, compiled.error().message, "response_format.json_schema.schema");
    }
    out = std::move(*compiled);
  }
  const std::lock_guard lock(mutex_);
  compiled_.emplace_front(key, out);
  if (compiled_.size() > kCompiledSchemas) compiled_.pop_back();
  return out;
}

ApiResult<GenerationRequest> GenerationRequests::prepare(const SamplingFields& fields, std::string_view tenant,
                                                         Deadline deadline) {
  GenerationRequest out;
  SamplingParams& sampling = out.sampling;
  sampling = SamplingParams::from(side_.generation_config());
  sampling.temperature = fields.temperature.value_or(sampling.temperature);
  sampling.top_k = fields.top_k.value_or(sampling.top_k);
  sampling.top_p = fields.top_p.value_or(sampling.top_p);
  sampling.min_p = fields.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = fields.repetition_penalty.value_or(sampling.repetition_penalty);
  sampling.presence_penalty = fields.presence_penalty;
  sampling.frequency_penalty = fields.frequency_penalty;
  const std::int64_t vocabulary = side_.config().text.vocab_size;
  for (const auto& [id, bias] : fields.logit_bias) {
    if (id >= vocabulary)
      return refuse(ErrorKind::kInvalidRequest,
                    fmt::format("expected token ids below {}, the size of the vocabulary, got {}", vocabulary, id),
                    "logit_bias");
    sampling.logit_bias.emplace_back(id, bias);
  }
  for (const std::int64_t id : fields.stop_token_ids)
    if (id < 0 || id >= vocabulary)
      return refuse(ErrorKind::kInvalidRequest,
                    fmt::format("expected token ids from 0 to {}, got {}", vocabulary - 1, id), "stop_token_ids");
  sampling.seed = fields.seed.value_or(0);
  if (auto ok = check_sampling(sampling); !ok) return tl::unexpected(api_error(ok.error()));
  out.max_tokens = fields.max_tokens.value_or(std::numeric_limits<std::int64_t>::max());
  out.min_tokens = fields.min_tokens;
  out.ignore_eos = fields.ignore_eos;
  out.logprobs = fields.logprobs;
  out.stop = fields.stop;
  out.end_token_ids = side_.generation_config().eos_token_id;
  out.stop_token_ids = fields.stop_token_ids;
  auto compiled = constraint(fields.format);
  if (!compiled) return tl::unexpected(std::move(compiled).error());
  out.constraint = std::move(*compiled);
  if (out.constraint != nullptr) {  // a constrained answer ends where it is whole, or it would not parse
    out.stop.clear();
    out.stop_token_ids.clear();
  }
  out.cache_salt = tenant;
  out.deadline = deadline;
  return out;
}

ApiResult<GenerationRequest> GenerationRequests::complete(const GenerationRequest& prepared,
                                                          const SamplingFields& fields, LanguagePrompt prompt,
                                                          std::int64_t nth) const {
  GenerationRequest out = prepared;
  const std::int64_t limit = side_.config().text.max_position_embeddings, size = prompt.size();
  if (size >= limit)
    return refuse(ErrorKind::kContextLength,
                  fmt::format("The messages have {} tokens, pictures included; this model's context takes fewer than "
                              "{}. Send smaller pictures (mm_processor_kwargs.max_pixels) or less text.",
                              size, limit),
                  "messages");
  // An answer of any length: as far as the context goes, and the memory for it.
  const std::int64_t memory = side_.capacity();
  if (!fields.max_tokens) out.max_tokens = std::max<std::int64_t>(1, std::min(limit, memory) - size);
  if (const std::int64_t longest = size + std::min(out.max_tokens, limit - size); longest > memory)
    return refuse(ErrorKind::kInvalidRequest,
                  fmt::format("The messages have {} tokens and the answer may have {}: this server has memory for {} "
                              "together. Ask for fewer max_tokens, or send smaller pictures.",
                              size, longest - size, memory),
                  fields.max_tokens ? "max_tokens" : "messages");
  if (out.min_tokens > out.max_tokens)
    return refuse(
        ErrorKind::kInvalidRequest,
        fmt::format("expected at most the {} tokens that there is room for, got {}", out.max_tokens, out.min_tokens),
        "min_tokens");
  out.prompt = std::move(prompt);
  out.sampling.seed =
      fields.seed ? *fields.seed + static_cast<std::uint64_t>(nth) : random_seed();  // each answer draws its own
  return out;
}

std::vector<ChatMessage> GenerationRequests::messages_of(const std::vector<RequestMessage>& messages,
                                                         std::vector<const ContentPart*>& pictures,
                                                         bool pictures_first) {
  std::vector<ChatMessage> out;
  for (const RequestMessage& message : messages) {
    ChatMessage chat{message.role, {}};
    std::vector<const ContentPart*> parts;
    for (const ContentPart& part : message.parts) parts.push_back(&part);
    if (pictures_first) {
      std::stable_partition(parts.begin(), parts.end(),
                            [](const ContentPart* part) { return part->kind != ContentPart::Kind::kText; });
    }
    for (const ContentPart* part : parts) {
      switch (part->kind) {
        case ContentPart::Kind::kText: chat.parts.push_back(ChatPart::of_text(part->text)); continue;
        case ContentPart::Kind::kImage: chat.parts.push_back(ChatPart::image()); break;
        case ContentPart::Kind::kVideo: chat.parts.push_back(ChatPart::video()); break;
      }
      pictures.push_back(part);
    }
    out.push_back(std::move(chat));
  }
  return out;
}

}  // namespace chiasm
