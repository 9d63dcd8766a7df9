// The engine loop: prompts in, answers out, several at once over one pool of KV blocks.
//
// What the prompts of a call have in common from their start (system text, pictures) is prefilled once; the others go
// on from there with their own tokens. Prompts are cut into steps of a bounded size, decoding sequences share each
// step. Neither changes an answer: logits are bit-identical however they were computed (ops.h, the row contract).
// Thread contract: one run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/ops.h"
#include "language/prompt_assembly.h"
#include "language/sampler.h"
#include "language/sequence.h"
#include "models/language_model.h"
#include "text/tokenizer.h"

namespace chiasm {

struct EngineOptions {
  // Address space of the KV pool; memory is taken as tokens come. 0: 4 GiB, or what one sequence of
  // max_position_embeddings needs where that is more.
  std::uint64_t kv_bytes = 0;
  std::int64_t step_tokens = 512;   // tokens computed in one step, at most
  std::int64_t max_sequences = 64;  // questions answered at the same time
  bool share_prefix = true;
};

struct GenerationRequest {
  LanguagePrompt prompt;
  SamplingParams sampling;
  std::int64_t max_tokens = 256;             // may be more than the context has room for: the answer ends there
  std::int64_t logprobs = -1;                // -1: none; n: of the chosen token and the n most likely
  std::vector<std::int64_t> stop_token_ids;  // end the answer; the last of token_ids, not in the text
};

struct Completion {
  std::vector<std::int32_t> token_ids;
  std::string text;
  FinishReason finish_reason = FinishReason::kLength;
  bool context_full = false;  // kLength because of max_position_embeddings: a larger max_tokens gives no more
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompt, computed for another question
  double prefill_ms = 0;           // the steps that this prompt's own tokens were part of
  double decode_ms = 0;            // from the first token to the last
  std::vector<Logprobs> logprobs;
};

// What can be said of requests without weights: a prompt that is empty or beyond max_position_embeddings, sampling
// parameters or max_tokens out of range. The error names the question.
Status check_requests(std::span<const GenerationRequest> requests, const TextConfig& config);

// Called for each request with text as it comes: whole UTF-8 characters.
using OnText = std::function<void(std::size_t request, std::string_view text)>;

class Engine {
 public:
  // `model`, `tokenizer` and `ops` must outlive the engine.
  static Result<std::unique_ptr<Engine>> create(const LanguageModel& model, const Tokenizer& tokenizer, const Ops& ops,
                                                const EngineOptions& options = {});

  // Answers in the order of the requests. Errors: those of check_requests, prompt and answer beyond the pool
  // (kResourceExhausted), ids beyond the vocabulary, logits that are not finite (kDataLoss).
  Result<std::vector<Completion>> run(std::span<const GenerationRequest> requests, const OnText& on_text = nullptr);

  // Tokens that fit the pool.
  std::int64_t capacity() const;

 private:
  class Run;
  Engine(const LanguageModel& model, const Tokenizer& tokenizer, const EngineOptions& options,
         std::unique_ptr<KvPool> pool, const Ops& ops)
      : model_(model), tokenizer_(tokenizer), options_(options), ops_(ops), pool_(std::move(pool)) {}

  // Tokens that an answer may have.
  std::int64_t answer_limit(const GenerationRequest& request) const;
  // Tokens that prompt and answer may come to.
  std::int64_t longest(const GenerationRequest& request) const { return request.prompt.size() + answer_limit(request); }
  Status check_fits_pool(const GenerationRequest& request) const;

  const LanguageModel& model_;
  const Tokenizer& tokenizer_;
  const EngineOptions options_;
  const Ops& ops_;
  std::unique_ptr<KvPool> pool_;
};

}  // namespace chiasm
