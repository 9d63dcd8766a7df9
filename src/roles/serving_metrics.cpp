#include "roles/serving_metrics.h"

#include <algorithm>
#include <utility>

namespace chiasm {

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
}

void ServingMetrics::answered(const Completion& completion, double e2e_seconds) {
  ++finished_;
  const std::string reason = completion.finish_reason == FinishReason::kStop ? "stop" : "length";
  const double ttft = completion.ttft_ms / 1e3;
  const auto generated = static_cast<double>(completion.token_ids.size());
  const auto observe = [&](const std::string& name, const std::string& help, const std::vector<double>& buckets,
                           double value) {
    metrics_.histogram("chiasm_" + name, help, buckets).observe(value);
    metrics_.histogram("vllm:" + name, help, buckets, model_).observe(value);
  };
  observe("time_to_first_token_seconds", "Time to first token in seconds", duration_buckets(), ttft);
  observe("e2e_request_latency_seconds", "End to end request latency in seconds", duration_buckets(), e2e_seconds);
  observe("request_queue_time_seconds", "Time spent waiting in seconds", duration_buckets(), completion.queue_ms / 1e3);
  observe("request_prefill_time_seconds", "Time spent in prefill in seconds", duration_buckets(),
          completion.prefill_ms / 1e3);
  observe("request_decode_time_seconds", "Time spent in decode in seconds", duration_buckets(),
          completion.decode_ms / 1e3);
  observe("request_prompt_tokens", "Number of prefill tokens processed", token_buckets(),
          static_cast<double>(completion.prompt_tokens));
  observe("request_generation_tokens", "Number of generation tokens processed", token_buckets(), generated);
  if (generated > 1) {
    const double each = completion.decode_ms / 1e3 / (generated - 1);
    observe("time_per_output_token_seconds", "Time per output token in seconds", duration_buckets(), each);
    observe("inter_token_latency_seconds", "Inter token latency in seconds", duration_buckets(), each);
  }
  MetricLabels labels = model_;
  labels["finished_reason"] = reason;
  metrics_.counter("vllm:request_success_total", "Count of successfully processed requests", labels).add();
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
