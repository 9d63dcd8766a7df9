// The routes of a server that answers questions: the OpenAI API, /v1/ask, /v1/images, the page.
//
// Composes a LanguageSide and an Eye; where the Eye's encoder runs is not known here. Thread contract: routes() is
// called once; handlers run on any thread; what it was given must outlive it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "api/chat_request.h"
#include "base/log.h"
#include "base/metrics.h"
#include "http/server.h"
#include "roles/answering.h"
#include "roles/eye.h"
#include "roles/generation_requests.h"
#include "roles/language_side.h"
#include "roles/picture_desk.h"
#include "roles/serving_metrics.h"

namespace chiasm {

struct LanguageServerOptions {
  std::vector<std::string> model_names;  // the first is the one that answers carry
  std::string tenant_header;             // "": all clients share what is kept
  RequestLimits limits;
  std::uint64_t max_body = 128ULL << 20;
  std::string version;
  bool web = true;              // the page at "/"
  bool pictures_first = false;  // before the text of their message, wherever the request has them
  std::chrono::milliseconds ping_every = kPingEvery;
};

class LanguageServer {
 public:
  LanguageServer(LanguageSide& side, Eye& eye, PictureDesk& desk, Metrics& metrics, Log& log,
                 LanguageServerOptions options);

  std::vector<Route> routes();

 private:
  // What all answers of a request share.
  struct Job;

  void chat(Exchange& exchange);
  void answer_whole(Exchange& exchange, Answering& answering, const Job& job, std::int64_t n);
  void answer_streamed(Answering& answering, const Job& job, EventStream& stream, std::int64_t n, bool include_usage);

  void ask(Exchange& exchange);
  void ask_whole(Exchange& exchange, Answering& answering, const Job& job, const std::vector<std::string>& questions);
  void ask_streamed(Answering& answering, const Job& job, EventStream& stream,
                    const std::vector<std::string>& questions);
  AskAnswer ask_answer(const Job& job, const Answering::Queue::Item& item, const std::vector<std::string>& questions);

  void upload_image(Exchange& exchange);
  void show_image(Exchange& exchange);
  void forget_image(Exchange& exchange);

  void list_models(Exchange& exchange) const;
  void show_model(Exchange& exchange) const;
  void show_status(Exchange& exchange) const;

  // Checks the model's name and takes the tenant.
  ApiResult<Job> begin(const HttpRequest& request, const std::string& model, std::string_view id_prefix) const;
  ApiResult<GenerationRequest> request_of(const GenerationRequest& prepared, const SamplingFields& fields,
                                          const std::vector<ChatMessage>& messages, const LookedPictures& pictures,
                                          std::int64_t nth) const;
  std::string tenant_of(const HttpRequest& request) const;
  LookContext look_context(const Job& job, std::optional<std::int64_t> min_pixels,
                           std::optional<std::int64_t> max_pixels, std::string_view bounds_in,
                           const CancelFlag& cancel) const;
  // Of the tokens that the text is made of: the one that ended it is not among them.
  std::vector<TokenLogprobs> logprobs_of(std::span<const Logprobs> logprobs, bool ended_by_token) const;
  void finished(const Job& job, const Completion& completion);
  void refused(const Job& job, const ApiError& error);

  LanguageSide& side_;
  Eye& eye_;
  PictureDesk& desk_;
  Log& log_;
  const LanguageServerOptions options_;
  GenerationRequests requests_;
  ServingMetrics serving_;
  const std::int64_t created_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

// For the files that these routes are written in.
struct LanguageServer::Job {
  AnswerHead head;
  std::string tenant;
  Deadline deadline = kNoDeadline;
  LookedPictures pictures;
  bool logprobs = false;
  std::chrono::steady_clock::time_point arrived = std::chrono::steady_clock::now();
};

}  // namespace chiasm
