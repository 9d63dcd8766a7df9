// One generation: what is asked of the engine, what comes back, and the handle to stop it.
//
// Thread contract: plain values; Generation::cancel may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "grammar/token_constraint.h"
#include "language/prompt_assembly.h"
#include "language/sampler.h"
#include "models/config.h"

namespace chiasm {

struct GenerationRequest {
  LanguagePrompt prompt;
  SamplingParams sampling;
  std::int64_t max_tokens = 256;             // may be more than the context has room for: the answer ends there
  std::int64_t logprobs = -1;                // -1: none; n: of the chosen token and the n most likely
  std::vector<std::int64_t> stop_token_ids;  // end the answer; the last of token_ids, not in the text
  std::vector<std::int64_t> end_token_ids;   // the model's own: the same, unless ignore_eos
  std::vector<std::string> stop;             // end the text before the first of them (stop_strings.h)
  std::int64_t min_tokens = 0;               // before these, no stop token may come and no stop string is looked for
  bool ignore_eos = false;
  std::shared_ptr<const TokenConstraint> constraint;  // may be null
  std::string cache_salt;                             // beginnings are shared with requests of the same salt only
  Deadline deadline = kNoDeadline;
};

enum class FinishReason : std::uint8_t { kStop, kLength };

struct Completion {
  std::vector<std::int32_t> token_ids;
  std::string text;
  FinishReason finish_reason = FinishReason::kLength;
  std::optional<std::string> stopped_by;  // the stop string
  bool stopped_by_token = false;          // the last of token_ids, which is not in the text
  bool context_full = false;  // kLength because of max_position_embeddings: a larger max_tokens gives no more
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompt, computed for another question
  double queue_ms = 0;             // from submit to the first step that it is part of
  double ttft_ms = 0;              // from submit to the first token
  double prefill_ms = 0;           // the steps that this prompt's own tokens were part of
  double decode_ms = 0;            // the steps from the first token to the last
  std::vector<float> itl_ms;       // from each token to the next
  std::vector<Logprobs> logprobs;
};

// One token each, in order; the last one, which may have none, carries how it ended. Text may come later than the
// token it belongs to: whole characters only, and nothing that may be the beginning of a stop string.
struct GenerationEvent {
  std::string text;
  std::vector<std::int32_t> token_ids;
  std::vector<Logprobs> logprobs;
  std::optional<Result<Completion>> end;
};

// Called from the engine's thread, in order; must not block, nor destroy the engine. After `end` never again. One that
// throws cancels its generation.
using OnEvent = std::function<void(GenerationEvent&&)>;

// The handle of a submitted request. Destroying it does not cancel.
class Generation {
 public:
  // Dropped at the next step with kCancelled, unless it has ended.
  void cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

 private:
  std::atomic<bool> cancelled_ = false;
};

// What can be said of requests without weights: a prompt that is empty, beyond max_position_embeddings or of ids beyond
// the vocabulary, features that do not fit it, sampling parameters, max_tokens, min_tokens or stop strings out of
// range. check_requests names the question.
Status check_request(const GenerationRequest& request, const TextConfig& config);
Status check_requests(std::span<const GenerationRequest> requests, const TextConfig& config);

}  // namespace chiasm
