#include "roles/language_server.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/openapi.h"
#include "roles/page.h"
#include "roles/replies.h"

namespace chiasm {
namespace {

constexpr std::size_t kLongestTenant = 256;

}  // namespace

LanguageServer::LanguageServer(LanguageSide& side, Eye& eye, PictureDesk& desk, Metrics& metrics, Log& log,
                               LanguageServerOptions options)
    : side_(side),
      eye_(eye),
      desk_(desk),
      log_(log),
      options_(std::move(options)),
      requests_(side),
      serving_(metrics, options_.model_names.front(), side, eye),
      created_(unix_time()) {}

std::vector<Route> LanguageServer::routes() {
  std::vector<Route> out;
  const auto work = [&](std::string method, std::string pattern, void (LanguageServer::*handler)(Exchange&),
                        std::uint64_t max_body) {
    out.push_back({std::move(method), std::move(pattern), [this, handler](Exchange& e) { (this->*handler)(e); },
                   Route::Lane::kWork, false, max_body});
  };
  const auto control = [&](std::string pattern, Handler handler) {
    out.push_back({"GET", std::move(pattern), std::move(handler), Route::Lane::kControl, false, 0});
  };
  work("POST", "/v1/chat/completions", &LanguageServer::chat, options_.max_body);
  work("POST", "/v1/ask", &LanguageServer::ask, options_.max_body);
  work("POST", "/v1/images", &LanguageServer::upload_image, options_.max_body);
  work("GET", "/v1/images/{id}", &LanguageServer::show_image, 0);
  work("DELETE", "/v1/images/{id}", &LanguageServer::forget_image, 0);
  control("/v1/models", [this](Exchange& e) { list_models(e); });
  control("/v1/models/{id}", [this](Exchange& e) { show_model(e); });
  control("/v1/status", [this](Exchange& e) { show_status(e); });
  control("/openapi.json",
          [document = openapi_json(options_.version, options_.limits)](Exchange& e) { reply_json(e, document); });
  if (options_.web)
    for (Route& route : page_routes()) out.push_back(std::move(route));
  return out;
}

std::string LanguageServer::tenant_of(const HttpRequest& request) const {
  if (options_.tenant_header.empty()) return {};
  return std::string(request.headers.find(options_.tenant_header).value_or(""));
}

ApiResult<LanguageServer::Job> LanguageServer::begin(const HttpRequest& request, const std::string& model,
                                                     std::string_view id_prefix) const {
  Job out;
  const auto& names = options_.model_names;
  if (!model.empty() && std::find(names.begin(), names.end(), model) == names.end())
    return tl::unexpected(ApiError{
        ErrorKind::kNotFound,
        fmt::format("The model \"{}\" is not served here; this server has \"{}\".", model, names.front()), "model"});
  out.head = {new_request_id(id_prefix), unix_time(), names.front()};
  out.tenant = tenant_of(request);
  if (out.tenant.size() > kLongestTenant)
    return tl::unexpected(
        ApiError{ErrorKind::kInvalidRequest,
                 fmt::format("expected a tenant of at most {} characters, got {}", kLongestTenant, out.tenant.size()),
                 options_.tenant_header});
  out.deadline = request.deadline;
  return out;
}

LookContext LanguageServer::look_context(const Job& job, std::optional<std::int64_t> min_pixels,
                                         std::optional<std::int64_t> max_pixels, std::string_view bounds_in,
                                         const CancelFlag& cancel) const {
  return {min_pixels, max_pixels, bounds_in, job.tenant, job.deadline, &cancel};
}

ApiResult<GenerationRequest> LanguageServer::request_of(const GenerationRequest& prepared, const SamplingFields& fields,
                                                        const std::vector<ChatMessage>& messages,
                                                        const LookedPictures& pictures, std::int64_t nth) const {
  auto prompt = side_.prompt_of({messages, pictures.images, pictures.videos});
  if (!prompt) return tl::unexpected(api_error(prompt.error(), "messages"));
  return requests_.complete(prepared, fields, std::move(*prompt), nth);
}

std::vector<TokenLogprobs> LanguageServer::logprobs_of(std::span<const Logprobs> logprobs, bool ended_by_token) const {
  if (ended_by_token && !logprobs.empty()) logprobs = logprobs.first(logprobs.size() - 1);
  std::vector<TokenLogprobs> out;
  out.reserve(logprobs.size());
  for (const Logprobs& token : logprobs) out.push_back(token_logprobs(side_.tokenizer(), token));
  return out;
}

void LanguageServer::finished(const Job& job, const Completion& completion) {
  const std::chrono::duration<double> whole = std::chrono::steady_clock::now() - job.arrived;
  serving_.answered(completion, whole.count());
  log_.info("answer", {{"id", job.head.id},
                       {"prompt_tokens", completion.prompt_tokens},
                       {"cached_tokens", completion.cached_tokens},
                       {"completion_tokens", completion.token_ids.size()},
                       {"finish_reason", std::string(finish_reason_name(completion.finish_reason))},
                       {"pictures", job.pictures.uses.size()},
                       {"vision_ms", job.pictures.ms},
                       {"queue_ms", completion.queue_ms},
                       {"prefill_ms", completion.prefill_ms},
                       {"decode_ms", completion.decode_ms}});
}

void LanguageServer::refused(const Job& job, const ApiError& error) {
  serving_.failed(std::to_string(http_status(error.kind)));
  log_.info("refused", {{"id", job.head.id}, {"status", http_status(error.kind)}, {"param", error.param}});
}

void LanguageServer::list_models(Exchange& exchange) const {
  std::vector<ModelCard> cards;
  for (const std::string& name : options_.model_names)
    cards.push_back({name, created_, side_.config().text.max_position_embeddings});
  reply_json(exchange, model_list_json(cards));
}

void LanguageServer::show_model(Exchange& exchange) const {
  const std::string_view id = exchange.request().capture("id");
  const auto& names = options_.model_names;
  if (std::find(names.begin(), names.end(), id) == names.end())
    return reply_error(exchange, {ErrorKind::kNotFound, "No model of this name is served here.", "model"});
  reply_json(exchange, model_json({std::string(id), created_, side_.config().text.max_position_embeddings}));
}

void LanguageServer::show_status(Exchange& exchange) const {
  const EngineStatus engine = side_.status();
  const EyeStatus eye = eye_.status();
  const std::chrono::duration<double> up = std::chrono::steady_clock::now() - started_;
  nlohmann::ordered_json out;
  out["object"] = "status";
  out["uptime_s"] = up.count();
  out["model"] = options_.model_names.front();
  out["requests"] = {{"running", engine.running},
                     {"waiting", engine.waiting},
                     {"finished", serving_.finished_total()},
                     {"failed", serving_.failed_total()}};
  out["kv"] = {{"blocks", engine.kv_blocks}, {"used", engine.kv_used}, {"cached", engine.kv_cached}};
  out["prefix_cache"] = {{"queried_tokens", engine.prefix_queried_tokens}, {"hit_tokens", engine.prefix_hit_tokens}};
  out["features"] = {{"memory_entries", eye.memory_entries},
                     {"memory_bytes", eye.memory_bytes},
                     {"memory_hits", eye.memory_hits},
                     {"disk_hits", eye.disk_hits},
                     {"encoded", eye.encoded}};
  out["tokens"] = {{"prompt", engine.prompt_tokens}, {"generated", engine.generated_tokens}};
  out["vision"] = {{"queued_tokens", eye.queued_tokens}, {"batches", eye.batches}, {"pictures", eye.pictures}};
  out["vision_servers"] = nlohmann::ordered_json::array();
  for (const EyeStatus::Server& server : eye.servers)
    out["vision_servers"].push_back({{"name", server.name}, {"state", server.state}});
  reply_json(exchange, out.dump());
}

}  // namespace chiasm
