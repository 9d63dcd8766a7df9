#include "roles/answering.h"

#include <future>
#include <mutex>
#include <utility>

#include "http/sse.h"
#include "roles/replies.h"

namespace chiasm {

struct Answering::Shared {
  CancelFlag left = false;
  Queue events;
  std::mutex mutex;
  std::vector<std::shared_ptr<Generation>> generations;

  void cancel_all() {
    left = true;
    const std::lock_guard lock(mutex);
    for (const auto& generation : generations) generation->cancel();
  }
};

Answering::Answering(Exchange& exchange) : shared_(std::make_shared<Shared>()) {
  exchange.on_gone([shared = shared_] { shared->cancel_all(); });
}

Answering::~Answering() { shared_->cancel_all(); }

const CancelFlag& Answering::left() const { return shared_->left; }

ApiResult<void> Answering::submit(LanguageSide& side, std::vector<GenerationRequest> requests) {
  auto generations = side.submit(std::move(requests), [shared = shared_](std::size_t which, GenerationEvent&& event) {
    shared->events.push(which, std::move(event));
  });
  if (!generations) return tl::unexpected(generation_error(generations.error()));
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->generations = std::move(*generations);
  }
  if (shared_->left) shared_->cancel_all();  // it left in between
  return {};
}

std::optional<Answering::Queue::Item> Answering::next(Deadline until) { return shared_->events.pop(until); }

bool EventStream::write(std::string_view text) {
  if (!begun_) {
    exchange_.start(200, sse_headers());
    begun_ = true;
  }
  return exchange_.write(text);
}

bool EventStream::send(std::string_view json) { return write(sse_data(json)); }
bool EventStream::ping() { return write(sse_comment("ping")); }

void EventStream::fail(const ApiError& error) {
  if (!begun_) return reply_error(exchange_, error);
  write(sse_data(error_json(error)));
  done();
}

void EventStream::done() {
  write(sse_data("[DONE]"));
  exchange_.finish();
}

ApiResult<LookedPictures> look_with_pings(const PictureDesk& desk, std::span<const ContentPart* const> parts,
                                          const LookContext& context, EventStream* stream,
                                          std::chrono::milliseconds every) {
  if (stream == nullptr || parts.empty()) return desk.look(parts, context);
  auto looked = std::async(std::launch::async, [&] { return desk.look(parts, context); });
  while (looked.wait_for(every) != std::future_status::ready) stream->ping();
  return looked.get();
}

TokenLogprobs token_logprobs(const Tokenizer& tokenizer, const Logprobs& logprobs) {
  const auto choice = [&](const TokenLogprob& token) {
    return TokenChoice{std::string(tokenizer.token_bytes(token.id)), token.logprob};
  };
  TokenLogprobs out{choice(logprobs.chosen), {}};
  for (const TokenLogprob& token : logprobs.top) out.top.push_back(choice(token));
  return out;
}

std::string_view finish_reason_name(FinishReason reason) { return reason == FinishReason::kStop ? "stop" : "length"; }

AnswerTiming timing_of(const Completion& completion, double vision_ms) {
  return {completion.queue_ms, vision_ms, completion.prefill_ms, completion.decode_ms};
}

AnswerUsage usage_of(const Completion& completion) {
  return {completion.prompt_tokens, static_cast<std::int64_t>(completion.token_ids.size()), completion.cached_tokens};
}

ApiError generation_error(const Error& error) {
  switch (error.code) {
    case Code::kUnavailable: return {ErrorKind::kOverloaded, "The server is shutting down. Try again shortly.", {}};
    case Code::kResourceExhausted:
      return {ErrorKind::kOverloaded, "The server has as many requests waiting as it takes. Try again shortly.", {}};
    case Code::kDeadlineExceeded: return {ErrorKind::kDeadline, "The request's time is over.", {}};
    case Code::kDataLoss:
      return {ErrorKind::kInternal,
              "The model's numbers are not finite for this request: its weights, or the features of a picture, are "
              "damaged.",
              {}};
    default: return api_error(error);
  }
}

}  // namespace chiasm
