// POST /v1/chat/completions.
#include <algorithm>
#include <utility>

#include "roles/language_server.h"
#include "roles/replies.h"

namespace chiasm {

void LanguageServer::chat(Exchange& exchange) {
  if (!is_json(exchange.request())) return reply_error(exchange, not_json());
  auto parsed = parse_chat_request(exchange.request().body, options_.limits);
  if (!parsed) {
    serving_.failed(std::to_string(http_status(parsed.error().kind)));
    return reply_error(exchange, parsed.error());
  }
  const ChatRequest& request = *parsed;
  exchange.take_body();  // its pictures are decoded: the text need not be held as well
  Answering answering(exchange);
  EventStream stream(exchange);
  auto job = begin(exchange.request(), request.model, "chatcmpl");
  if (!job) {
    serving_.failed(std::to_string(http_status(job.error().kind)));
    return stream.fail(job.error());
  }
  const auto fail = [&](const ApiError& error) {
    refused(*job, error);
    stream.fail(error);
  };
  auto prepared = requests_.prepare(request.sampling, job->tenant, job->deadline);
  if (!prepared) return fail(prepared.error());

  std::vector<const ContentPart*> parts;
  const std::vector<ChatMessage> messages =
      GenerationRequests::messages_of(request.messages, parts, options_.pictures_first);
  auto looked = look_with_pings(
      desk_, parts,
      look_context(*job, request.min_pixels, request.max_pixels, "mm_processor_kwargs.", answering.left()),
      request.stream ? &stream : nullptr, options_.ping_every);
  if (!looked) return fail(looked.error());
  job->pictures = std::move(*looked);
  job->logprobs = request.sampling.logprobs >= 0;
  for (const VisionUse& use : job->pictures.uses) serving_.looked(use.source, use.ms / 1e3, use.tokens);

  std::vector<GenerationRequest> generations;
  for (std::int64_t nth = 0; nth < request.n; ++nth) {
    auto generation = request_of(*prepared, request.sampling, messages, job->pictures, nth);
    if (!generation) return fail(generation.error());
    generations.push_back(std::move(*generation));
  }
  if (auto begun = answering.submit(side_, std::move(generations)); !begun) return fail(begun.error());
  if (request.stream) {
    answer_streamed(answering, *job, stream, request.n, request.include_usage);
  } else {
    answer_whole(exchange, answering, *job, request.n);
  }
}

void LanguageServer::answer_whole(Exchange& exchange, Answering& answering, const Job& job, std::int64_t n) {
  std::vector<ChatChoice> choices(static_cast<std::size_t>(n));
  AnswerUsage usage;
  AnswerTiming timing;
  for (std::int64_t open = n; open > 0;) {
    auto item = answering.next(kNoDeadline);
    if (!item || !item->event.end) continue;
    if (!*item->event.end) {
      const ApiError error = generation_error(item->event.end->error());
      refused(job, error);
      return reply_error(exchange, error);
    }
    const Completion& completion = **item->event.end;
    finished(job, completion);
    ChatChoice& choice = choices[item->from];
    choice.index = static_cast<std::int64_t>(item->from);
    choice.content = completion.text;
    choice.finish_reason = finish_reason_name(completion.finish_reason);
    if (job.logprobs) choice.logprobs = logprobs_of(completion.logprobs, completion.stopped_by_token);
    const AnswerUsage one = usage_of(completion);
    usage.completion_tokens += one.completion_tokens;
    if (item->from == 0) {
      usage.prompt_tokens = one.prompt_tokens;
      usage.cached_tokens = one.cached_tokens;
      timing = timing_of(completion, job.pictures.ms);
    }
    --open;
  }
  reply_json(exchange, chat_completion_json(job.head, choices, usage, job.pictures.uses, timing));
}

void LanguageServer::answer_streamed(Answering& answering, const Job& job, EventStream& stream, std::int64_t n,
                                     bool include_usage) {
  bool there = true;
  for (std::int64_t i = 0; i < n && there; ++i) there = stream.send(role_chunk_json(job.head, i, include_usage));
  AnswerUsage usage;
  AnswerTiming timing;
  for (std::int64_t open = n; open > 0 && there;) {
    auto item = answering.next(std::chrono::steady_clock::now() + options_.ping_every);
    if (!item) {
      there = stream.ping();
      continue;
    }
    const auto index = static_cast<std::int64_t>(item->from);
    const GenerationEvent& event = item->event;
    const bool ended_by_token = event.end && *event.end && (*event.end)->stopped_by_token;
    const std::vector<TokenLogprobs> logprobs =
        job.logprobs ? logprobs_of(event.logprobs, ended_by_token) : std::vector<TokenLogprobs>();
    if (!event.text.empty() || !logprobs.empty()) {
      there =
          stream.send(text_chunk_json(job.head, index, event.text, job.logprobs ? &logprobs : nullptr, include_usage));
    }
    if (!event.end) continue;
    if (!*event.end) {
      const ApiError error = generation_error(event.end->error());
      refused(job, error);
      return stream.fail(error);
    }
    const Completion& completion = **event.end;
    finished(job, completion);
    there = there && stream.send(finish_chunk_json(job.head, index, finish_reason_name(completion.finish_reason),
                                                   include_usage));
    const AnswerUsage one = usage_of(completion);
    usage.completion_tokens += one.completion_tokens;
    if (index == 0) {
      usage.prompt_tokens = one.prompt_tokens;
      usage.cached_tokens = one.cached_tokens;
      timing = timing_of(completion, job.pictures.ms);
    }
    --open;
  }
  if (there && include_usage) stream.send(usage_chunk_json(job.head, usage, job.pictures.uses, timing));
  stream.done();
}

}  // namespace chiasm
