#include "language/engine.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/stopwatch.h"
#include "language/kv_blocks.h"
#include "language/scheduler.h"
#include "text/detokenizer.h"

namespace chiasm {
namespace {

constexpr std::uint64_t kUsualPool = 4ULL << 30;

std::int64_t blocks_for(std::int64_t tokens) { return (tokens + kKvBlock - 1) / kKvBlock; }

std::uint64_t block_bytes(const LanguageModel& model) {
  const KvShape one = model.kv_shape(1);
  return static_cast<std::uint64_t>(one.layers * one.kv_heads * one.head_dim * 2 * kKvBlock) * sizeof(float);
}

Status check_request(const GenerationRequest& request, const TextConfig& config) {
  RETURN_IF_ERROR(check_sampling(request.sampling));
  const std::int64_t limit = config.max_position_embeddings, size = request.prompt.size();
  if (size == 0) return fail(Code::kInvalidArgument, "the prompt is empty");
  if (request.max_tokens < 1)
    return fail(Code::kInvalidArgument, "max_tokens: expected at least 1, got {}", request.max_tokens);
  if (size >= limit)
    return fail(Code::kResourceExhausted,
                "the prompt has {} tokens; this model takes fewer than {} (max_position_embeddings)", size, limit);
  return {};
}

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
      CHECK(!running_.empty());  // any one of them fits: check_fits_pool and prefill_common_prefix see to it
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
    // A block that the beginning fills in part is copied for each question. Where the pool has no room for the copy,
    // whole blocks are shared only.
    for (const GenerationRequest& request : requests_)
      if (own_blocks(request) > blocks_.free() - blocks_for(prefix_size_)) prefix_size_ -= prefix_size_ % kKvBlock;
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
    return blocks_for(engine_.longest(request)) - prefix_size_ / kKvBlock;
  }

  // Takes waiting requests while there is room for all they may come to need.
  void admit() {
    while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < engine_.options_.max_sequences) {
      const std::size_t request = waiting_.front();
      std::int64_t promised = own_blocks(requests_[request]);
      for (const Sequence& other : running_)
        promised +=
            blocks_for(engine_.longest(requests_[other.request])) - static_cast<std::int64_t>(other.block_table.size());
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
      RETURN_IF_ERROR(take_token(*sampling[i], row));
    }
    return {};
  }

  static std::int32_t position(const Sequence& sequence, std::size_t axis, std::int64_t t) {
    const Positions& positions = sequence.prompt->positions;
    if (t < sequence.prompt_size()) return positions.position_ids[axis][static_cast<std::size_t>(t)];
    return static_cast<std::int32_t>(t + positions.rope_delta);
  }

  Status take_token(Sequence& sequence, std::span<float> logits) {
    if (!all_finite(logits))
      return fail(Code::kDataLoss,
                  "question {}: the model's logits are not finite after {} tokens: are its weights, or the features of "
                  "a picture, damaged?",
                  sequence.request + 1, sequence.token_ids.size());
    const GenerationRequest& request = requests_[sequence.request];
    std::vector<float> raw;
    if (request.logprobs >= 0) raw.assign(logits.begin(), logits.end());
    const std::int32_t id = sample(logits, request.sampling, sequence.token_ids, sequence.generated());
    if (request.logprobs >= 0) sequence.logprobs.push_back(logprobs_of(raw, id, request.logprobs));
    sequence.token_ids.push_back(id);
    if (!is_stop(request, id)) emit(sequence.request, detokenizers_[sequence.request].push(id));
    return {};
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
    std::erase_if(running_, [&](Sequence& sequence) {
      const GenerationRequest& request = requests_[sequence.request];
      if (sequence.generated() == 0) return false;
      const bool stopped = is_stop(request, sequence.token_ids.back());
      if (!stopped && sequence.generated() < engine_.answer_limit(request)) return false;
      Completion& out = completions_[sequence.request];
      emit(sequence.request, detokenizers_[sequence.request].finish());
      out.token_ids.assign(sequence.token_ids.begin() + sequence.prompt_size(), sequence.token_ids.end());
      out.finish_reason = stopped ? FinishReason::kStop : FinishReason::kLength;
      out.context_full = !stopped && static_cast<std::int64_t>(sequence.token_ids.size()) ==
                                         engine_.model_.config().max_position_embeddings;
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
  const std::uint64_t block = block_bytes(model);
  const auto longest = static_cast<std::uint64_t>(blocks_for(model.config().max_position_embeddings));
  // Never more than every sequence at its full length could use.
  const std::uint64_t useful = longest * (static_cast<std::uint64_t>(options.max_sequences) + 1);
  // The longest sequence and a beginning that others share: a block of it that is not full is there twice.
  const bool automatic = options.kv_bytes == 0;
  const std::uint64_t usual = std::max<std::uint64_t>(1, kUsualPool / block);
  const std::uint64_t wanted = automatic ? std::max(usual, longest + 1) : options.kv_bytes / block;
  if (wanted == 0)
    return fail(Code::kInvalidArgument, "kv_bytes: expected at least the {} bytes of a KV block of this model, got {}",
                block, options.kv_bytes);
  const auto make = [&](std::uint64_t blocks) {
    return ops.make_kv_pool(model.kv_shape(static_cast<std::int64_t>(std::min(blocks, useful))));
  };
  auto pool = make(wanted);
  if (!pool && automatic && usual < wanted) pool = make(usual);  // a system that counts address space
  if (!pool) return tl::unexpected(std::move(pool).error());
  return std::unique_ptr<Engine>(new Engine(model, tokenizer, options, std::move(*pool), ops));
}

std::int64_t Engine::capacity() const { return pool_->shape().blocks * kKvBlock; }

std::int64_t Engine::answer_limit(const GenerationRequest& request) const {
  return std::min(request.max_tokens, model_.config().max_position_embeddings - request.prompt.size());
}

Status Engine::check_fits_pool(const GenerationRequest& request) const {
  if (longest(request) <= capacity()) return {};
  return fail(Code::kResourceExhausted,
              "the prompt has {} tokens and the answer may have {}: they need {} bytes of KV pool, this one has {}; "
              "give it more (kv_bytes), or ask for smaller pictures or fewer max_tokens",
              request.prompt.size(), answer_limit(request),
              static_cast<std::uint64_t>(blocks_for(longest(request))) * block_bytes(model_),
              static_cast<std::uint64_t>(pool_->shape().blocks) * block_bytes(model_));
}

Status check_requests(std::span<const GenerationRequest> requests, const TextConfig& config) {
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (auto status = check_request(requests[i], config); !status)
      return fail_in(fmt::format("question {}", i + 1), status.error());
  return {};
}

Result<std::vector<Completion>> Engine::run(std::span<const GenerationRequest> requests, const OnText& on_text) {
  RETURN_IF_ERROR(check_requests(requests, model_.config()));
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (auto status = check_fits_pool(requests[i]); !status)
      return fail_in(fmt::format("question {}", i + 1), status.error());
  return Run(*this, requests, on_text).answer();
}

}  // namespace chiasm
