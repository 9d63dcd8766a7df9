// POST /v1/ask: pictures and a list of questions, all answered in one batch over what they share.
#include <utility>

#include "roles/language_server.h"
#include "roles/replies.h"

namespace chiasm {
namespace {

AskAnswer answer_of(const Completion& completion, std::size_t index, const std::string& question, double vision_ms) {
  AskAnswer out;
  out.index = static_cast<std::int64_t>(index);
  out.question = question;
  out.answer = completion.text;
  out.finish_reason = finish_reason_name(completion.finish_reason);
  out.usage = usage_of(completion);
  out.timing = timing_of(completion, vision_ms);
  return out;
}

void add(AnswerUsage& sum, const AnswerUsage& one) {
  sum.prompt_tokens += one.prompt_tokens;
  sum.completion_tokens += one.completion_tokens;
  sum.cached_tokens += one.cached_tokens;
}

}  // namespace

void LanguageServer::ask(Exchange& exchange) {
  if (!is_json(exchange.request())) return reply_error(exchange, not_json());
  auto parsed = parse_ask_request(exchange.request().body, options_.limits);
  if (!parsed) {
    serving_.failed(std::to_string(http_status(parsed.error().kind)));
    return reply_error(exchange, parsed.error());
  }
  const AskRequest& request = *parsed;
  exchange.take_body();
  Answering answering(exchange);
  EventStream stream(exchange);
  auto job = begin(exchange.request(), request.model, "ask");
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
  for (const ContentPart& part : request.pictures) parts.push_back(&part);
  auto looked =
      look_with_pings(desk_, parts, look_context(*job, request.min_pixels, request.max_pixels, "", answering.left()),
                      request.stream ? &stream : nullptr, options_.ping_every);
  if (!looked) return fail(looked.error());
  job->pictures = std::move(*looked);
  job->logprobs = request.sampling.logprobs >= 0;
  for (const VisionUse& use : job->pictures.uses) serving_.looked(use.source, use.ms / 1e3, use.tokens);

  std::vector<GenerationRequest> generations;
  for (std::size_t i = 0; i < request.questions.size(); ++i) {
    std::vector<ChatMessage> messages;
    if (request.system) messages.push_back({"system", {ChatPart::of_text(*request.system)}});
    ChatMessage user{"user", {}};
    for (const ContentPart& part : request.pictures)
      user.parts.push_back(part.kind == ContentPart::Kind::kVideo ? ChatPart::video() : ChatPart::image());
    user.parts.push_back(ChatPart::of_text(request.questions[i]));
    messages.push_back(std::move(user));
    auto generation = request_of(*prepared, request.sampling, messages, job->pictures, static_cast<std::int64_t>(i));
    if (!generation) {
      ApiError error = generation.error();
      error.param = fmt::format("questions[{}]", i);
      return fail(error);
    }
    generations.push_back(std::move(*generation));
  }
  if (auto begun = answering.submit(side_, std::move(generations)); !begun) return fail(begun.error());
  if (request.stream) {
    ask_streamed(answering, *job, stream, request.questions);
  } else {
    ask_whole(exchange, answering, *job, request.questions);
  }
}

// A question that fails does not take the others' answers with it: its error stands in its place.
AskAnswer LanguageServer::ask_answer(const Job& job, const Answering::Queue::Item& item,
                                     const std::vector<std::string>& questions) {
  const Result<Completion>& end = *item.event.end;
  if (!end) {
    AskAnswer out;
    out.index = static_cast<std::int64_t>(item.from);
    out.question = questions[item.from];
    out.error = generation_error(end.error());
    refused(job, *out.error);
    return out;
  }
  finished(job, *end);
  AskAnswer out = answer_of(*end, item.from, questions[item.from], job.pictures.ms);
  if (job.logprobs) out.logprobs = logprobs_of(end->logprobs, end->stopped_by_token);
  return out;
}

void LanguageServer::ask_whole(Exchange& exchange, Answering& answering, const Job& job,
                               const std::vector<std::string>& questions) {
  std::vector<AskAnswer> answers(questions.size());
  AnswerUsage usage;
  std::optional<ApiError> error;
  std::size_t failed = 0;
  for (std::size_t open = questions.size(); open > 0;) {
    auto item = answering.next(kNoDeadline);
    if (!item || !item->event.end) continue;
    AskAnswer& answer = answers[item->from] = ask_answer(job, *item, questions);
    add(usage, answer.usage);
    if (answer.error) {
      error = answer.error;
      ++failed;
    }
    --open;
  }
  // Nothing to show beside the error: then it is the request's.
  if (failed == questions.size()) return reply_error(exchange, *error);
  reply_json(exchange, ask_result_json(job.head, answers, usage, job.pictures.uses));
}

void LanguageServer::ask_streamed(Answering& answering, const Job& job, EventStream& stream,
                                  const std::vector<std::string>& questions) {
  bool there = stream.send(ask_vision_json(job.head, job.pictures.uses));
  AnswerUsage usage;
  for (std::size_t open = questions.size(); open > 0 && there;) {
    auto item = answering.next(std::chrono::steady_clock::now() + options_.ping_every);
    if (!item) {
      there = stream.ping();
      continue;
    }
    if (!item->event.text.empty())
      there = stream.send(ask_delta_json(job.head, static_cast<std::int64_t>(item->from), item->event.text));
    if (!item->event.end) continue;
    const AskAnswer answer = ask_answer(job, *item, questions);
    add(usage, answer.usage);
    there = there && stream.send(ask_answer_json(job.head, answer));
    --open;
  }
  if (there) stream.send(ask_done_json(job.head, usage));
  stream.done();
}

}  // namespace chiasm
