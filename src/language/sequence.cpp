#include "language/sequence.h"

#include <algorithm>
#include <utility>

namespace chiasm {
namespace {

bool is_among(std::int32_t id, const std::vector<std::int64_t>& ids) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::vector<KvSlot> slots_of(const LanguagePrompt& prompt) {
  std::vector<KvSlot> out(prompt.token_ids.size());
  for (std::size_t t = 0; t < out.size(); ++t) {
    out[t].token_id = prompt.token_ids[t];
    for (std::size_t axis = 0; axis < 3; ++axis) out[t].position[axis] = prompt.positions.position_ids[axis][t];
  }
  for (const PlacedFeature& placed : prompt.features)
    for (std::int64_t row = 0; row < placed.feature->rows.rows(); ++row) {
      KvSlot& slot = out[static_cast<std::size_t>(placed.row + row)];
      slot.row = static_cast<std::int32_t>(row);
      slot.feature = placed.feature->meta.id;
    }
  return out;
}

}  // namespace

Sequence::Sequence(GenerationRequest&& request_in, OnEvent on_event_in, const TextConfig& config,
                   const Tokenizer& tokenizer)
    : request(std::move(request_in)),
      on_event(std::move(on_event_in)),
      answer_limit(std::min(request.max_tokens, config.max_position_embeddings - request.prompt.size())),
      vocab_size(config.vocab_size),
      context(config.max_position_embeddings),
      token_ids(request.prompt.token_ids),
      slots(slots_of(request.prompt)),
      answer(tokenizer, request.stop) {}

void Sequence::append(std::int32_t id) {
  const auto position = static_cast<std::int32_t>(size() + request.prompt.positions.rope_delta);
  token_ids.push_back(id);
  slots.push_back({.token_id = id, .position = {position, position, position}});
}

bool Sequence::ends_with(std::int32_t id) const {
  return is_among(id, request.stop_token_ids) || (!request.ignore_eos && is_among(id, request.end_token_ids));
}

// The mask for the next token; false when the constraint has nothing left to say.
bool Sequence::allow_next() {
  if (request.constraint == nullptr) return true;
  if (constraint == nullptr) {
    constraint = request.constraint->start();
    allowed.emplace(vocab_size);
  }
  constraint->mask(answer_limit - generated(), *allowed);
  const auto words = allowed->words();
  if (std::none_of(words.begin(), words.end(), [](std::uint64_t word) { return word != 0; })) return false;
  if (!may_stop() || !constraint->may_end()) return true;
  const auto allow = [&](const std::vector<std::int64_t>& ids) {
    for (const std::int64_t id : ids)
      if (id >= 0 && id < vocab_size) allowed->set(static_cast<std::int32_t>(id));
  };
  allow(request.stop_token_ids);
  if (!request.ignore_eos) allow(request.end_token_ids);
  return true;
}

bool Sequence::wants_likeliest() const {
  const SamplingParams& params = request.sampling;
  return (params.temperature == 0 || params.top_k == 1) && params.repetition_penalty == 1 &&
         params.frequency_penalty == 0 && params.presence_penalty == 0 && params.logit_bias.empty() &&
         request.logprobs < 0 && request.constraint == nullptr && may_stop();
}

std::optional<Result<Completion>> Sequence::take_likeliest(std::int32_t id) {
  if (id < 0) return not_finite();
  if (generated() == 0) ttft_ms = ms_since_submit();
  return take(id, {});
}

std::optional<Result<Completion>> Sequence::take_token(std::span<float> logits) {
  if (!all_finite(logits)) return not_finite();
  if (generated() == 0) {
    if (!allow_next()) return complete(FinishReason::kStop);
    ttft_ms = ms_since_submit();
  }
  std::vector<float> raw;
  if (request.logprobs >= 0) raw.assign(logits.begin(), logits.end());
  std::vector<std::int64_t> forbidden;
  if (!may_stop()) {
    forbidden = request.stop_token_ids;
    forbidden.insert(forbidden.end(), request.end_token_ids.begin(), request.end_token_ids.end());
  }
  const std::span<const std::int32_t> seen(token_ids);
  const auto id = sample(logits, request.sampling, seen, generated(),
                         {.generated = seen.subspan(static_cast<std::size_t>(prompt_size())),
                          .allowed = allowed ? &*allowed : nullptr,
                          .forbidden = forbidden});
  if (!id) return complete(FinishReason::kStop);
  return take(*id, raw);
}

Result<Completion> Sequence::not_finite() const {
  return fail(Code::kDataLoss,
              "the model's logits are not finite after {} tokens: are its weights, or the features of a picture, "
              "damaged?",
              token_ids.size());
}

// `raw`: the logits as they came, where their probabilities are wanted.
std::optional<Result<Completion>> Sequence::take(std::int32_t id, std::span<const float> raw) {
  GenerationEvent event;
  event.token_ids.push_back(id);
  if (request.logprobs >= 0) {
    logprobs.push_back(logprobs_of(raw, id, request.logprobs));
    event.logprobs.push_back(logprobs.back());
  }
  const auto now = Clock::now();
  if (generated() > 0) itl_ms.push_back(std::chrono::duration<float, std::milli>(now - last_token_).count());
  last_token_ = now;
  const bool armed = may_stop();
  append(id);
  const bool stops = ends_with(id);
  if (!stops) event.text = answer.push(id, armed);
  last_ = std::move(event);
  if (stops || answer.stopped_by()) {
    Completion out = complete(FinishReason::kStop);
    out.stopped_by_token = stops;
    return out;
  }
  if (constraint != nullptr) constraint->accept(id);
  if (generated() >= answer_limit)
    return complete(constraint != nullptr && constraint->may_end() ? FinishReason::kStop : FinishReason::kLength);
  if (constraint != nullptr && !allow_next()) return complete(FinishReason::kStop);  // whole: nothing left to compute
  emit(std::exchange(last_, {}));
  return std::nullopt;
}

Completion Sequence::complete(FinishReason reason) {
  last_.text += answer.finish(may_stop());
  Completion out;
  out.token_ids.assign(token_ids.begin() + prompt_size(), token_ids.end());
  out.text = answer.text();
  out.stopped_by = answer.stopped_by();
  out.finish_reason = out.stopped_by ? FinishReason::kStop : reason;
  out.context_full = out.finish_reason == FinishReason::kLength && size() == context;
  out.prompt_tokens = prompt_size();
  out.cached_tokens = cached;
  out.queue_ms = queue_ms;
  out.ttft_ms = ttft_ms;
  out.itl_ms = std::move(itl_ms);
  out.logprobs = std::move(logprobs);
  return out;
}

void Sequence::end(Result<Completion> how) {
  if (ended_) return;
  if (how) {
    how->prefill_ms = prefill_ms;
    how->decode_ms = decode_ms;
  }
  GenerationEvent event = std::exchange(last_, {});
  event.end = std::move(how);
  emit(std::move(event));
  ended_ = true;
}

void Sequence::emit(GenerationEvent&& event) {
  if (ended_ || on_event == nullptr) return;
  try {
    on_event(std::move(event));
  } catch (...) {  // whoever listens is broken: nobody else is to suffer
    handle->cancel();
    ended_ = true;
  }
}

}  // namespace chiasm
