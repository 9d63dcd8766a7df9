#include "roles/serving_metrics.h"

#include <algorithm>
#include <utility>

namespace chiasm {

std::function<void(const StepReport&)> step_observer(Metrics& metrics, Log& log) {
  const auto steps = [&](const char* computes) {
    return &metrics.histogram("chiasm_engine_step_seconds", "A pass of the language model, by what it computes",
                              duration_buckets(), {{"computes", computes}});
  };
  Histogram& pauses = metrics.histogram("chiasm_engine_pause_seconds",
                                        "Left to the vision encoder before a pass in which streams get their tokens",
                                        duration_buckets());
  return [answers = steps("answers"), prompts = steps("prompts"), both = steps("both"), &pauses,
          &log](const StepReport& step) {
    (step.prefill_tokens == 0 ? answers : step.decode_tokens == 0 ? prompts : both)->observe(step.ms / 1e3);
    if (step.decode_tokens > 0) pauses.observe(step.pause_ms / 1e3);
    log.debug("step", {{"answer_tokens", step.decode_tokens},
                       {"prompt_tokens", step.prefill_tokens},
                       {"pause_ms", step.pause_ms},
                       {"ms", step.ms}});
  };
}

// vLLM's names: https://docs.vllm.ai/en/latest/design/metrics.html
ServingMetrics::ServingMetrics(Metrics& metrics, const std::string& model, const LanguageSide& side, const Eye& eye)
    : metrics_(metrics), model_{{"model_name", model}} {
  metrics.on_read([&side, &eye, labels = model_](MetricReader& reader) {
    const EngineStatus engine = side.status();
    const auto number = [](auto value) { return static_cast<double>(value); };
    const double used = engine.kv_blocks == 0 ? 0 : number(engine.kv_used) / number(engine.kv_blocks);

    reader.gauge("chiasm_requests_running", "Sequences that are computed now", number(engine.running));
    reader.gauge("chiasm_requests_waiting", "Sequences that wait to be computed", number(engine.waiting));
    reader.gauge("chiasm_kv_blocks", "Blocks of the KV pool", number(engine.kv_blocks));
    reader.gauge("chiasm_kv_blocks_used", "Blocks that running sequences hold", number(engine.kv_used));
    reader.gauge("chiasm_kv_blocks_cached", "Blocks that nobody holds, kept for those who share a prefix",
                 number(engine.kv_cached));
    reader.counter("chiasm_prefix_cache_queried_tokens_total", "Prompt tokens looked up in the prefix cache",
                   number(engine.prefix_queried_tokens));
    reader.counter("chiasm_prefix_cache_hit_tokens_total", "Prompt tokens found there",
                   number(engine.prefix_hit_tokens));
    reader.counter("chiasm_prompt_tokens_total", "Prompt tokens of admitted sequences", number(engine.prompt_tokens));
    reader.counter("chiasm_generated_tokens_total", "Tokens generated", number(engine.generated_tokens));
    reader.counter("chiasm_preemptions_total", "Sequences that gave their blocks back and began again",
                   number(engine.preemptions));
    reader.counter("chiasm_engine_steps_total", "Passes of the language model", number(engine.steps));

    MetricLabels cache = labels;
    cache["block_size"] = std::to_string(kKvBlock);
    cache["num_gpu_blocks"] = std::to_string(engine.kv_blocks);
    reader.gauge("vllm:cache_config_info", "Information of the KV cache", 1, cache);
    reader.gauge("vllm:num_requests_running", "Number of requests in model execution batches", number(engine.running),
                 labels);
    reader.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed", number(engine.waiting),
                 labels);
    reader.gauge("vllm:kv_cache_usage_perc", "KV cache usage, 1 means 100 percent", used, labels);
    reader.gauge("vllm:gpu_cache_usage_perc", "KV cache usage, 1 means 100 percent (the older name)", used, labels);
    reader.counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in tokens",
                   number(engine.prefix_queried_tokens), labels);
    reader.counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens", number(engine.prefix_hit_tokens),
                   labels);
    reader.counter("vllm:num_preemptions_total", "Cumulative number of preemptions", number(engine.preemptions),
                   labels);
    reader.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed", number(engine.prompt_tokens),
                   labels);
    reader.counter("vllm:generation_tokens_total", "Number of generation tokens processed",
                   number(engine.generated_tokens), labels);
    eye.read_metrics(reader);
  });
  observe_all({});
  for (const char* reason : {"stop", "length"}) success(reason).add(0);
}

Counter& ServingMetrics::success(const std::string& reason) {
  MetricLabels labels = model_;
  labels["finished_reason"] = reason;
  return metrics_.counter("vllm:request_success_total", "Count of successfully processed requests", labels);
}

void ServingMetrics::observe(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                             std::span<const double> values) {
  Histogram& ours = metrics_.histogram("chiasm_" + name, help, buckets);
  Histogram& theirs = metrics_.histogram("vllm:" + name, help, buckets, model_);
  for (const double value : values) {
    ours.observe(value);
    theirs.observe(value);
  }
}

// Without values the names are made known, so that a dashboard has zeros before the first answer.
void ServingMetrics::observe_all(std::span<const Observed> answers) {
  const auto each = [&](const std::string& name, const std::string& help, const std::vector<double>& buckets,
                        auto&& value) {
    std::vector<double> values;
    for (const Observed& one : answers) values.push_back(value(*one.completion, one.e2e_seconds));
    observe(name, help, buckets, values);
  };
  const auto& seconds = duration_buckets();
  each("time_to_first_token_seconds", "Time to first token in seconds", seconds,
       [](const Completion& one, double) { return one.ttft_ms / 1e3; });
  each("e2e_request_latency_seconds", "End to end request latency in seconds", seconds,
       [](const Completion&, double e2e) { return e2e; });
  each("request_queue_time_seconds", "Time spent waiting in seconds", seconds,
       [](const Completion& one, double) { return one.queue_ms / 1e3; });
  each("request_prefill_time_seconds", "Time spent in prefill in seconds", seconds,
       [](const Completion& one, double) { return one.prefill_ms / 1e3; });
  each("request_decode_time_seconds", "Time spent in decode in seconds", seconds,
       [](const Completion& one, double) { return one.decode_ms / 1e3; });
  each("request_inference_time_seconds", "Time spent in prefill and decode in seconds", seconds,
       [](const Completion& one, double) { return (one.prefill_ms + one.decode_ms) / 1e3; });
  const auto generated = [](const Completion& one, double) { return static_cast<double>(one.token_ids.size()); };
  each("request_prompt_tokens", "Number of prefill tokens processed", token_buckets(),
       [](const Completion& one, double) { return static_cast<double>(one.prompt_tokens); });
  each("request_generation_tokens", "Number of generation tokens processed", token_buckets(), generated);
  each("request_max_num_generation_tokens", "Most tokens that an answer of the request has", token_buckets(),
       generated);

  std::vector<double> gaps, means;
  for (const Observed& one : answers) {
    for (const float ms : one.completion->itl_ms) gaps.push_back(ms / 1e3);
    if (const auto tokens = one.completion->token_ids.size(); tokens > 1)
      means.push_back(one.completion->decode_ms / 1e3 / static_cast<double>(tokens - 1));
  }
  observe("inter_token_latency_seconds", "From each token to the next in seconds", seconds, gaps);
  observe("time_per_output_token_seconds", "Mean time per output token of an answer in seconds", seconds, means);
}

void ServingMetrics::answered(const Completion& completion, double e2e_seconds) {
  ++finished_;
  const Observed one{&completion, e2e_seconds};
  observe_all({&one, 1});
  const std::string reason = completion.finish_reason == FinishReason::kStop ? "stop" : "length";
  success(reason).add();
  metrics_.counter("chiasm_answers_total", "Answers by the reason they ended", {{"finish_reason", reason}}).add();
}

void ServingMetrics::failed(std::string_view reason) {
  ++failed_;
  metrics_
      .counter("chiasm_answers_failed_total", "Requests that got an error instead of an answer",
               {{"reason", std::string(reason)}})
      .add();
}

void ServingMetrics::looked(std::string_view source, double seconds, std::int64_t tokens) {
  const MetricLabels labels{{"source", std::string(source)}};
  metrics_.counter("chiasm_pictures_total", "Pictures of requests, by where their features came from", labels).add();
  metrics_.counter("chiasm_picture_tokens_total", "Image tokens of requests, by where they came from", labels)
      .add(static_cast<double>(tokens));
  metrics_
      .histogram("chiasm_picture_seconds", "From the bytes of a picture to its features", duration_buckets(), labels)
      .observe(seconds);
}

}  // namespace chiasm
