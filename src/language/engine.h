// Prompts in, answers out, many at once over one pool of KV blocks: the language server's engine.
//
// Requests join between steps (continuous batching). What prompts have in common from their start (system text,
// pictures, earlier turns) is computed once, for requests at the same time and for later ones. Prompts are cut into
// steps of a bounded size beside sequences that decode; where KV blocks run out, the latest arrivals step back and go
// on later. None of it changes an answer: logits are bit-identical however they were computed (ops.h, the row
// contract). Thread contract: all methods may be called from any thread. The engine computes on one thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/ops.h"
#include "language/engine_loop.h"
#include "language/generation.h"
#include "models/language_model.h"
#include "text/tokenizer.h"

namespace chiasm {

struct EngineOptions {
  // Address space of the KV pool; memory is taken as tokens come, and with share_prefix kept for who begins alike, so
  // that a server comes to use all of it. 0: 4 GiB, or what one sequence of max_position_embeddings needs where that is
  // more; on a card, which gives a pool's memory at once, three quarters of what is free after the weights, or less
  // where it refuses that. Never more than all sequences at their longest could use.
  std::uint64_t kv_bytes = 0;
  std::int64_t step_tokens = 512;  // tokens computed in one step, at most
  // What others (prompts, and who stands behind `way`) may add to the time between two tokens of a stream, all
  // together; 0: prompts what they take, the others half a step.
  double stall_ms = 0;
  // Taken by steps that decode, so that those behind compute between them; null: nobody stands there. Must outlive the
  // engine. Not taken where the steps are a card's.
  RightOfWay* way = nullptr;
  std::int64_t max_sequences = 64;  // questions answered at the same time
  bool share_prefix = true;         // false: nothing is kept and nothing shared
  std::int64_t max_waiting = 256;   // submissions whose first step is not yet begun
  // Called from the engine's thread after each step; must not block; may be null.
  std::function<void(const StepReport&)> on_step;
};

// Called for each request with text as it comes: whole UTF-8 characters.
using OnText = std::function<void(std::size_t request, std::string_view text)>;
// Events of requests that were submitted together; as OnEvent.
using OnEventOf = std::function<void(std::size_t request, GenerationEvent&&)>;

class Engine {
 public:
  // `model`, `tokenizer` and `ops` must outlive the engine.
  static Result<std::unique_ptr<Engine>> create(const LanguageModel& model, const Tokenizer& tokenizer, const Ops& ops,
                                                const EngineOptions& options = {});
  // What is open ends with kUnavailable.
  ~Engine();

  // Answers from the engine's thread, through `on_event`. Errors at once, and no event: those of check_request, prompt
  // and answer beyond the pool (kResourceExhausted), "queue full" (kResourceExhausted), after shutdown (kUnavailable).
  // Errors as the end: kCancelled, kDeadlineExceeded, logits that are not finite (kDataLoss), the model's own.
  Result<std::shared_ptr<Generation>> submit(GenerationRequest request, OnEvent on_event);
  // All or none, one behind the other in the queue, of which they take one place. Errors name the question.
  Result<std::vector<std::shared_ptr<Generation>>> submit_all(std::vector<GenerationRequest> requests,
                                                              OnEventOf on_event);

  // submit_all, and waits: answers in the order of the requests. `on_text` is called from this thread. One that fails
  // cancels the others; its error names the question. Not from an OnEvent.
  Result<std::vector<Completion>> run(std::span<const GenerationRequest> requests, const OnText& on_text = nullptr);

  EngineStatus status() const { return loop_->status(); }

  // Refuses what comes and ends what is open with kUnavailable, after the step that runs. Does not wait.
  void close() { loop_->close(); }
  // The same, and waits for it. Not from an OnEvent.
  void shutdown() { loop_->shutdown(); }

  // Tokens that fit the pool.
  std::int64_t capacity() const;

 private:
  Engine(const LanguageModel& model, const Tokenizer& tokenizer, const EngineOptions& options,
         std::unique_ptr<KvPool> pool, const Ops& ops);

  Status check_fits_pool(const GenerationRequest& request) const;
  Status check(const GenerationRequest& request) const;

  const LanguageModel& model_;
  const Tokenizer& tokenizer_;
  const std::uint64_t block_bytes_;  // of a KV block
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<EngineLoop> loop_;
};

}  // namespace chiasm
