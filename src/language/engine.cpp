#include "language/engine.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/stopwatch.h"
#include "language/kv_blocks.h"
#include "language/scheduler.h"
#include "text/detokenizer.h"

namespace chiasm {
namespace {

std::int64_t blocks_for(std::int64_t tokens) { return (tokens + kKvBlock - 1) / kKvBlock; }

}  // namespace

// One call of Engine::run.
class Engine::Run {
 public:
  Run(Engine& engine, std::span<const GenerationRequest> requests, const OnText& on_text)
      : engine_(engine),
        requests_(requests),
        on_text_(on_text),
        blocks_(engine.pool_->shape().blocks),
        completions_(requests.size()) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      waiting_.push_back(i);
      detokenizers_.emplace_back(engine.tokenizer_);
    }
  }

  Result<std::vector<Completion>> answer() {
    RETURN_IF_ERROR(prefill_common_prefix());
    while (!waiting_.empty() || !running_.empty()) {
      admit();
      if (running_.empty())
        return fail(Code::kResourceExhausted, "question {} needs {} KV blocks beside the shared beginning; {} are free",
                    waiting_.front() + 1, own_blocks(requests_[waiting_.front()]), blocks_.free());
      RETURN_IF_ERROR(step());
      finish_done();
    }
    return std::move(completions_);
  }

 private:
  // The shared beginning is a sequence of its own that the others fork from, and lives as long as any waits.
  Status prefill_common_prefix() {
    if (!engine_.options_.share_prefix || requests_.size() < 2) return {};
    std::vector<const LanguagePrompt*> prompts;
    for (const GenerationRequest& request : requests_) prompts.push_back(&request.prompt);
    prefix_size_ = common_prefix(prompts);
    // The last token of a prompt is always computed for the question itself: its logits are the first answer.
    for (const LanguagePrompt* prompt : prompts) prefix_size_ = std::min(prefix_size_, prompt->size() - 1);
    if (prefix_size_ <= 0) return {};
    prefix_.prompt = prompts.front();
    prefix_.token_ids = prefix_.prompt->token_ids;
    while (prefix_.computed < prefix_size_) {
      const std::int64_t tokens = std::min(prefix_size_ - prefix_.computed, engine_.options_.step_tokens);
      const Stopwatch watch;
      const StepItem item{0, tokens};
      std::vector<Sequence*> sequences{&prefix_};
      RETURN_IF_ERROR(forward(sequences, {&item, 1}));
      prefix_.prefill_ms += watch.ms();
    }
    return {};
  }

  // Blocks that a question needs beside the whole ones of the shared beginning.
  std::int64_t own_blocks(const GenerationRequest& request) const {
    return blocks_for(request.prompt.size() + request.max_tokens) - prefix_size_ / kKvBlock;
  }

  // Takes waiting requests while there is room for all they may come to need.
  void admit() {
    while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < engine_.options_.max_sequences) {
      const std::size_t request = waiting_.front();
      std::int64_t promised = own_blocks(requests_[request]);
      for (const Sequence& other : running_)
        promised += blocks_for(other.prompt_size() + requests_[other.request].max_tokens) -
                    static_cast<std::int64_t>(other.block_table.size());
      if (promised > blocks_.free()) break;
      waiting_.pop_front();
      running_.push_back(fork(request));
    }
    if (waiting_.empty()) prefix_.release(blocks_);
  }

  Sequence fork(std::size_t request) {
    Sequence out;
    out.request = request;
    out.prompt = &requests_[request].prompt;
    out.token_ids = out.prompt->token_ids;
    if (prefix_size_ == 0) return out;
    for (std::int64_t b = 0; b < prefix_size_ / kKvBlock; ++b) {
      out.block_table.push_back(prefix_.block_table[static_cast<std::size_t>(b)]);
      blocks_.share(out.block_table.back());
    }
    if (prefix_size_ % kKvBlock != 0) {  // a block in which the sequences part ways: each gets its own copy
      out.block_table.push_back(blocks_.take());
      engine_.ops_.copy_kv_block(prefix_.block_table[out.block_table.size() - 1], out.block_table.back(),
                                 *engine_.pool_);
    }
    out.computed = prefix_size_;
    if (request == 0) {
      out.prefill_ms = prefix_.prefill_ms;  // somebody pays for the beginning: the first question
    } else {
      out.shared = prefix_size_;
    }
    return out;
  }

  Status step() {
    std::vector<std::int64_t> pending;
    std::vector<Sequence*> sequences;
    for (Sequence& sequence : running_) {
      pending.push_back(sequence.pending());
      sequences.push_back(&sequence);
    }
    const Stopwatch watch;
    const std::vector<StepItem> plan = plan_step(pending, engine_.options_.step_tokens);
    RETURN_IF_ERROR(forward(sequences, plan));
    const double ms = watch.ms();
    for (const StepItem& item : plan) {
      Sequence& sequence = *sequences[static_cast<std::size_t>(item.sequence)];
      (pending[static_cast<std::size_t>(item.sequence)] > 0 ? sequence.prefill_ms : sequence.decode_ms) += ms;
    }
    return {};
  }

  // Computes the planned tokens and samples where a sequence has its last token computed.
  Status forward(std::span<Sequence* const> sequences, std::span<const StepItem> plan) {
    std::vector<std::int32_t> token_ids, logits_rows;
    std::array<std::vector<std::int32_t>, 3> position_ids;
    std::vector<Splice> splices;
    std::vector<SequenceRows> rows;
    std::vector<Sequence*> sampling;
    for (const StepItem& item : plan) {
      Sequence& sequence = *sequences[static_cast<std::size_t>(item.sequence)];
      const std::int64_t first = sequence.computed, last = first + item.tokens;
      const auto base = static_cast<std::int64_t>(token_ids.size());
      sequence.grow(last, blocks_);
      rows.push_back({sequence.block_table, first, item.tokens});
      for (std::int64_t t = first; t < last; ++t) {
        token_ids.push_back(sequence.token_ids[static_cast<std::size_t>(t)]);
        for (std::size_t axis = 0; axis < 3; ++axis) position_ids[axis].push_back(position(sequence, axis, t));
      }
      for (const PlacedFeature& placed : sequence.prompt->features) {
        const ConstMatrixView features = placed.feature->rows.view();
        const std::int64_t begin = std::max(first, placed.row), end = std::min(last, placed.row + features.rows);
        if (begin < end) splices.push_back({features.row_range(begin - placed.row, end - begin), base + begin - first});
      }
      sequence.computed = last;
      if (&sequence != &prefix_ && sequence.pending() == 0) {
        logits_rows.push_back(static_cast<std::int32_t>(base + item.tokens - 1));
        sampling.push_back(&sequence);
      }
    }
    const LanguageBatch batch{
        token_ids, {position_ids[0], position_ids[1], position_ids[2]}, splices, rows, logits_rows};
    ASSIGN_OR_RETURN(Matrix logits, engine_.model_.forward(batch, *engine_.pool_));
    std::vector<float> row(static_cast<std::size_t>(engine_.model_.config().vocab_size));
    for (std::size_t i = 0; i < sampling.size(); ++i) {
      engine_.ops_.download(logits.view().row_range(static_cast<std::int64_t>(i), 1), row);
      take_token(*sampling[i], row);
    }
    return {};
  }

  static std::int32_t position(const Sequence& sequence, std::size_t axis, std::int64_t t) {
    const Positions& positions = sequence.prompt->positions;
    if (t < sequence.prompt_size()) return positions.position_ids[axis][static_cast<std::size_t>(t)];
    return static_cast<std::int32_t>(t + positions.rope_delta);
  }

  void take_token(Sequence& sequence, std::span<float> logits) {
    const GenerationRequest& request = requests_[sequence.request];
    std::vector<float> raw;
    if (request.logprobs >= 0) raw.assign(logits.begin(), logits.end());
    const std::int32_t id = sample(logits, request.sampling, sequence.token_ids, sequence.generated());
    if (request.logprobs >= 0) sequence.logprobs.push_back(logprobs_of(raw, id, request.logprobs));
    sequence.token_ids.push_back(id);
    if (!is_stop(request, id)) emit(sequence.request, detokenizers_[sequence.request].push(id));
  }

  static bool is_stop(const GenerationRequest& request, std::int32_t id) {
    return std::find(request.stop_token_ids.begin(), request.stop_token_ids.end(), id) != request.stop_token_ids.end();
  }

  void emit(std::size_t request, const std::string& text) {
    if (text.empty()) return;
    completions_[request].text += text;
    if (on_text_) on_text_(request, text);
  }

  void finish_done() {
    const std::int64_t limit = engine_.model_.config().max_position_embeddings;
    std::erase_if(running_, [&](Sequence& sequence) {
      const GenerationRequest& request = requests_[sequence.request];
      if (sequence.generated() == 0) return false;
      const bool stopped = is_stop(request, sequence.token_ids.back());
      if (!stopped && sequence.generated() < request.max_tokens &&
          static_cast<std::int64_t>(sequence.token_ids.size()) < limit)
        return false;
      Completion& out = completions_[sequence.request];
      emit(sequence.request, detokenizers_[sequence.request].finish());
      out.token_ids.assign(sequence.token_ids.begin() + sequence.prompt_size(), sequence.token_ids.end());
      out.finish_reason = stopped ? FinishReason::kStop : FinishReason::kLength;
      out.prompt_tokens = sequence.prompt_size();
      out.cached_tokens = sequence.shared;
      out.prefill_ms = sequence.prefill_ms;
      out.decode_ms = sequence.decode_ms;
      out.logprobs = std::move(sequence.logprobs);
      sequence.release(blocks_);
      return true;
    });
  }

  Engine& engine_;
  const std::span<const GenerationRequest> requests_;
  const OnText& on_text_;
  KvBlocks blocks_;
  std::vector<Completion> completions_;
  std::vector<Detokenizer> detokenizers_;
  std::deque<std::size_t> waiting_;
  std::deque<Sequence> running_;
  Sequence prefix_;
  std::int64_t prefix_size_ = 0;
};

Result<std::unique_ptr<Engine>> Engine::create(const LanguageModel& model, const Tokenizer& tokenizer, const Ops& ops,
                                               const EngineOptions& options) {
  if (options.step_tokens < 1 || options.max_sequences < 1)
    return fail(Code::kInvalidArgument, "expected at least 1 token a step and 1 sequence, got {} and {}",
                options.step_tokens, options.max_sequences);
  const KvShape one = model.kv_shape(1);
  const std::uint64_t block_bytes =
      static_cast<std::uint64_t>(one.layers * one.kv_heads * one.head_dim * 2 * kKvBlock) * sizeof(float);
  // Never more than every sequence at its full length could use.
  const std::uint64_t useful =
      static_cast<std::uint64_t>(blocks_for(model.config().max_position_embeddings) * (options.max_sequences + 1));
  const std::uint64_t blocks = std::min(options.kv_bytes / block_bytes, useful);
  if (blocks == 0)
    return fail(Code::kInvalidArgument, "a KV block of this model takes {} bytes, the pool has {}", block_bytes,
                options.kv_bytes);
  ASSIGN_OR_RETURN(auto pool, ops.make_kv_pool(model.kv_shape(static_cast<std::int64_t>(blocks))));
  return std::unique_ptr<Engine>(new Engine(model, tokenizer, options, std::move(pool), ops));
}

std::int64_t Engine::capacity() const { return pool_->shape().blocks * kKvBlock; }

Status Engine::check(const GenerationRequest& request) const {
  RETURN_IF_ERROR(check_sampling(request.sampling));
  const std::int64_t limit = model_.config().max_position_embeddings, size = request.prompt.size();
  if (size == 0) return fail(Code::kInvalidArgument, "the prompt is empty");
  if (request.max_tokens < 1)
    return fail(Code::kInvalidArgument, "max_tokens: expected at least 1, got {}", request.max_tokens);
  if (size >= limit)
    return fail(Code::kResourceExhausted,
                "the prompt has {} tokens; this model takes fewer than {} (max_position_embeddings)", size, limit);
  if (size + request.max_tokens > capacity())
    return fail(Code::kResourceExhausted, "prompt and answer may come to {} tokens; the KV pool holds {}",
                size + request.max_tokens, capacity());
  return {};
}

Result<std::vector<Completion>> Engine::run(std::span<const GenerationRequest> requests, const OnText& on_text) {
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (auto status = check(requests[i]); !status) return fail_in(fmt::format("question {}", i + 1), status.error());
  return Run(*this, requests, on_text).answer();
}

}  // namespace chiasm
