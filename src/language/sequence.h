// All state of one question on its way: what was asked, its KV blocks, what it has said so far.
//
// Thread contract: made by whoever submits, then owned by the engine's loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "language/answer_text.h"
#include "language/generation.h"
#include "language/kv_slot.h"
#include "language/prefix_cache.h"

namespace chiasm {

// Requests that were submitted together; counted as one while any of them waits for its first step.
struct SubmittedGroup {
  std::int64_t unstarted = 0;
};

struct Sequence {
  using Clock = std::chrono::steady_clock;

  // `limit`: tokens that the answer may have.
  Sequence(GenerationRequest&& request_in, OnEvent on_event_in, const TextConfig& config, const Tokenizer& tokenizer);

  const GenerationRequest request;
  const OnEvent on_event;
  const std::shared_ptr<Generation> handle = std::make_shared<Generation>();
  std::shared_ptr<SubmittedGroup> group;
  const std::int64_t answer_limit;
  const std::int64_t vocab_size, context;
  const Clock::time_point submitted = Clock::now();
  std::uint64_t arrival = 0;

  std::vector<std::int32_t> token_ids;  // prompt and answer
  std::vector<KvSlot> slots;            // of each
  PrefixCache::Chain chain;
  std::int64_t computed = 0;  // tokens whose keys and values are in the pool
  bool admitted = false;      // once, perhaps preempted since
  bool started = false;       // was part of a step
  bool closed = false;        // has ended, its blocks are given back
  std::int64_t cached = 0;    // prompt tokens that were there when it was admitted first

  AnswerText answer;
  std::vector<Logprobs> logprobs;  // one a generated token, when asked for
  std::unique_ptr<ConstraintState> constraint;
  std::optional<TokenMask> allowed;  // for the next token, where there is a constraint
  std::vector<float> itl_ms;
  double queue_ms = 0, ttft_ms = 0, prefill_ms = 0, decode_ms = 0;

  std::int64_t prompt_size() const { return request.prompt.size(); }
  std::int64_t size() const { return static_cast<std::int64_t>(token_ids.size()); }
  std::int64_t pending() const { return size() - computed; }
  std::int64_t generated() const { return size() - prompt_size(); }
  std::int64_t longest() const { return prompt_size() + answer_limit; }
  bool prefilling() const { return computed < prompt_size(); }
  double ms_since_submit() const { return std::chrono::duration<double, std::milli>(Clock::now() - submitted).count(); }

  // What the next token is made from: `logits` as the model gives them. Streams it, and returns the end where it is
  // one: an answer, or logits that mean nothing (kDataLoss).
  std::optional<Result<Completion>> take_token(std::span<float> logits);
  // Whether the likeliest token is all that the next one is made from, and the same with that token (-1: the logits
  // were not finite).
  bool wants_likeliest() const;
  std::optional<Result<Completion>> take_likeliest(std::int32_t id);
  // Hands over what is left to say with the end, and nothing afterwards.
  void end(Result<Completion> how);

 private:
  bool ends_with(std::int32_t id) const;
  bool may_stop() const { return generated() >= request.min_tokens; }
  bool allow_next();
  Result<Completion> not_finite() const;
  std::optional<Result<Completion>> take(std::int32_t id, std::span<const float> raw);
  Completion complete(FinishReason reason);
  void append(std::int32_t id);
  void emit(GenerationEvent&& event);

  Clock::time_point last_token_;
  GenerationEvent last_;  // of the last token, until it is known whether it is the end
  bool ended_ = false;
};

}  // namespace chiasm
