#include "language/engine_loop.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/stopwatch.h"

namespace chiasm {
namespace {

// What an exception is to whom it befell. Called from a catch block.
Error error_of_exception() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return {Code::kResourceExhausted, "out of memory"};
  } catch (const std::exception& e) {
    return {Code::kInternal, fmt::format("an exception in a step: {}", e.what())};
  } catch (...) {
    return {Code::kInternal, "an exception of an unknown type in a step"};
  }
}

bool by_arrival(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  return a->arrival < b->arrival;
}

void insert_by_arrival(std::vector<std::unique_ptr<Sequence>>& into, std::unique_ptr<Sequence> one) {
  const auto place = std::upper_bound(into.begin(), into.end(), one, by_arrival);
  into.insert(place, std::move(one));
}

}  // namespace

EngineLoop::EngineLoop(const LanguageModel& model, const Ops& ops, KvPool& pool, LoopOptions options)
    : model_(model),
      ops_(ops),
      pool_(pool),
      options_(std::move(options)),
      cache_(pool.shape().blocks, options_.share_prefix,
             {.copy = [this](std::int32_t from, std::int32_t to) { ops_.copy_kv_block(from, to, pool_); },
              .clear = [this](std::int32_t block, std::int64_t slot) { clear_block(block, slot); }}),
      pace_(options_.stall_ms) {
  published_.kv_blocks = cache_.blocks();
}

EngineLoop::~EngineLoop() { shutdown(); }

// --- from outside

Status EngineLoop::enqueue(Sequences sequences) {
  if (sequences.empty()) return {};
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return fail(Code::kUnavailable, "the engine is shut down");
    if (waiting_groups_ >= options_.max_waiting) {
      ++refused_;
      return fail(Code::kResourceExhausted, "queue full: {} requests wait already", waiting_groups_);
    }
    if (!thread_.joinable()) {
      try {
        thread_ = std::thread([this] { run(); });
      } catch (const std::system_error& e) {
        return fail(Code::kResourceExhausted, "no thread for the engine: {}", e.what());
      }
    }
    ++waiting_groups_;
    const auto group = std::make_shared<SubmittedGroup>();
    group->unstarted = static_cast<std::int64_t>(sequences.size());
    submitted_ += group->unstarted;
    for (auto& sequence : sequences) {
      sequence->group = group;
      sequence->arrival = ++arrivals_;
      inbox_.push_back(std::move(sequence));
    }
  }
  wake_.notify_one();
  return {};
}

EngineStatus EngineLoop::status() const {
  const std::lock_guard lock(mutex_);
  EngineStatus out = published_;
  out.waiting += static_cast<std::int64_t>(inbox_.size());
  out.submitted = submitted_;
  out.refused = refused_;
  return out;
}

void EngineLoop::close() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
}

void EngineLoop::shutdown() {
  close();
  const std::lock_guard lock(thread_mutex_);  // several may call
  if (thread_.joinable()) thread_.join();
}

// --- the loop

void EngineLoop::run() {
  for (bool open = true; open;) {
    try {
      open = take_in();
      if (open) turn();
    } catch (...) {  // of nobody in particular: whoever was in it ends, the server goes on
      end_all(error_of_exception());
    }
    publish();
  }
  end_all({Code::kUnavailable, "the engine is shut down"});
  publish();
}

// Sleeps while nothing is open. False: it is over.
bool EngineLoop::take_in() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return stop_ || !inbox_.empty() || !waiting_.empty() || !running_.empty(); });
  waiting_.reserve(waiting_.size() + inbox_.size());
  std::move(inbox_.begin(), inbox_.end(), std::back_inserter(waiting_));
  inbox_.clear();
  return !stop_;
}

void EngineLoop::turn() {
  drop_unwanted(running_);
  drop_unwanted(waiting_);
  admit_waiting();
  publish();  // a step takes its time
  if (!running_.empty()) step();
}

void EngineLoop::drop_unwanted(Sequences& sequences) {
  const auto now = Sequence::Clock::now();
  for (const auto& sequence : sequences) {
    if (sequence->handle->cancelled())
      end(*sequence, fail(Code::kCancelled, "cancelled after {} tokens", sequence->generated()));
    else if (sequence->request.deadline <= now)
      end(*sequence, fail(Code::kDeadlineExceeded, "the deadline passed after {} of at most {} tokens{}",
                          sequence->generated(), sequence->answer_limit, sequence->admitted ? "" : ", in the queue"));
  }
  remove_closed(sequences);
}

void EngineLoop::admit_waiting() {
  for (std::size_t i = 0; i < waiting_.size();) {
    if (static_cast<std::int64_t>(running_.size()) >= options_.max_sequences) return;
    Sequence& sequence = *waiting_[i];
    WaitingNumbers numbers{
        .tokens = sequence.size(), .longest = sequence.longest(), .prefix_under_way = prefix_under_way(sequence)};
    PrefixCache::Match match;
    if (!numbers.prefix_under_way) {
      // The last token is always computed: its logits are what comes next.
      const auto known = std::span<const KvSlot>(sequence.slots).first(sequence.slots.size() - 1);
      match = cache_.match(sequence.request.cache_salt, known);
      numbers.blocks = match.blocks;
      numbers.revived = match.revived;
    }
    const Admission admission = admit(numbers, running_numbers(), cache_.available(), options_.max_sequences);
    if (admission == Admission::kWaitsForRoom) return;
    if (admission == Admission::kWaitsForPrefix) {
      ++i;
      continue;
    }
    running_.reserve(running_.size() + 1);  // from here to there a sequence must not get lost
    join(sequence, match);
    insert_by_arrival(running_, std::move(waiting_[i]));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// Whether a running sequence is about to compute tokens that this one begins with. They were looked for when that one
// was admitted, so what it has not computed is not there.
bool EngineLoop::prefix_under_way(const Sequence& waiting) const {
  if (!options_.share_prefix) return false;
  return std::any_of(running_.begin(), running_.end(), [&](const std::unique_ptr<Sequence>& other) {
    if (!other->prefilling() || other->request.cache_salt != waiting.request.cache_salt) return false;
    const std::array<const LanguagePrompt*, 2> prompts{&waiting.request.prompt, &other->request.prompt};
    return std::min(common_prefix(prompts), waiting.size() - 1) > other->computed;
  });
}

void EngineLoop::join(Sequence& sequence, const PrefixCache::Match& match) {
  sequence.computed = cache_.start(sequence.chain, sequence.request.cache_salt, sequence.slots, match);
  if (sequence.admitted) return;
  sequence.admitted = true;
  sequence.cached = sequence.computed;
  counts_.prompt_tokens += sequence.prompt_size();
  if (options_.share_prefix) counts_.prefix_queried_tokens += sequence.prompt_size();
  counts_.prefix_hit_tokens += sequence.cached;
  leave_queue(sequence);
}

std::vector<RunningNumbers> EngineLoop::running_numbers() const {
  std::vector<RunningNumbers> out;
  std::vector<bool> seen(static_cast<std::size_t>(cache_.blocks()), false);
  for (const auto& sequence : running_)
    out.push_back({.tokens = sequence->size(),
                   .computed = sequence->computed,
                   .longest = sequence->longest(),
                   .blocks = sequence->chain.blocks(),
                   .releases = PrefixCache::count_new(sequence->chain, seen)});
  return out;
}

// Streams are to stay even: where somebody decodes, prompts take what the pace allows.
std::int64_t EngineLoop::token_budget(std::span<const RunningNumbers> running) const {
  const auto decoding = std::count_if(running.begin(), running.end(),
                                      [](const RunningNumbers& one) { return one.tokens - one.computed == 1; });
  if (decoding == 0) return options_.step_tokens;
  const bool shared = options_.way != nullptr && options_.way->wanted();
  return std::min(options_.step_tokens, decoding + std::min(options_.step_tokens, pace_.prefill_tokens(shared)));
}

void EngineLoop::preempt(std::size_t index) {
  waiting_.reserve(waiting_.size() + 1);
  cache_.release(running_[index]->chain);
  running_[index]->computed = 0;
  ++counts_.preemptions;
  insert_by_arrival(waiting_, std::move(running_[index]));
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
}

// What to take for the step: nothing where no stream waits for it, and it may share the processors.
RightOfWay* EngineLoop::pause_before(const StepReport& planned) const {
  if (options_.way == nullptr || planned.decode_tokens == 0) return nullptr;
  const std::chrono::duration<double, std::milli> time(pace_.pause_ms(planned.prefill_tokens > 0));
  options_.way->pause(std::chrono::duration_cast<std::chrono::nanoseconds>(time));
  return options_.way;
}

void EngineLoop::step() {
  const std::vector<RunningNumbers> running = running_numbers();
  const StepPlan plan = plan_step(running, cache_.available(), token_budget(running));
  CHECK(!plan.items.empty());  // the oldest always moves: whatever can never fit was refused
  std::vector<SequenceStep> steps;
  StepReport report;
  for (const StepItem& item : plan.items) {
    steps.push_back({running_[static_cast<std::size_t>(item.sequence)].get(), item.tokens});
    (steps.back().is_prefill() ? report.prefill_tokens : report.decode_tokens) += item.tokens;
  }
  for (const std::int64_t index : plan.preempted) preempt(static_cast<std::size_t>(index));
  for (const SequenceStep& one : steps) {
    cache_.grow(one.sequence->chain, one.end());
    if (!std::exchange(one.sequence->started, true)) one.sequence->queue_ms = one.sequence->ms_since_submit();
  }

  const Stopwatch whole;
  const WayTaken way(pause_before(report));
  report.pause_ms = whole.ms();
  const Stopwatch watch;
  Result<Outcome> together = compute(steps);
  if (together) {
    accept(steps, *together, whole.ms());
  } else if (steps.size() == 1) {
    end(*steps.front().sequence, tl::unexpected(together.error()));
  } else {
    // Somebody's tokens, or the size of it all: alone it shows whose.
    for (const SequenceStep& one : steps) {
      const Stopwatch own;
      Result<Outcome> alone = compute({&one, 1});
      if (alone)
        accept({&one, 1}, *alone, own.ms());
      else
        end(*one.sequence, tl::unexpected(alone.error()));
    }
  }
  remove_closed(running_);
  ++counts_.steps;
  counts_.prefilled_tokens += report.prefill_tokens;
  report.ms = watch.ms();
  pace_.took(report.prefill_tokens, report.decode_tokens, report.ms);
  if (!options_.on_step) return;
  try {
    options_.on_step(report);
  } catch (...) {  // NOLINT(bugprone-empty-catch): an observer's fault is nobody else's
  }
}

// For the steps that sample. Exceptions of the model's libraries end here.
Result<EngineLoop::Outcome> EngineLoop::compute(std::span<const SequenceStep> steps) {
  try {
    const StepBatch batch(steps);
    const bool greedy = std::all_of(steps.begin(), steps.end(), [](const SequenceStep& step) {
      return !step.samples() || step.sequence->wants_likeliest();
    });
    Outcome out;
    if (greedy) {
      out.likeliest.resize(batch.view().logits_rows.size());
      RETURN_IF_ERROR(model_.forward_greedy(batch.view(), pool_, out.likeliest));
    } else {
      ASSIGN_OR_RETURN(out.logits, model_.forward(batch.view(), pool_));
    }
    return out;
  } catch (...) {
    return tl::unexpected(error_of_exception());
  }
}

// The computed tokens of `steps` are in the pool.
void EngineLoop::accept(std::span<const SequenceStep> steps, Outcome& outcome, double ms) {
  std::int64_t row = 0;
  for (const SequenceStep& one : steps) {
    Sequence& sequence = *one.sequence;
    const bool samples = one.samples();
    (sequence.generated() == 0 ? sequence.prefill_ms : sequence.decode_ms) += ms;
    sequence.computed = one.end();
    cache_.advance(sequence.chain, sequence.computed);
    if (!samples) continue;
    try {
      sample(sequence, outcome, row++);
    } catch (...) {  // in its constraint, or for want of memory
      end(sequence, tl::unexpected(error_of_exception()));
    }
  }
}

void EngineLoop::sample(Sequence& sequence, Outcome& outcome, std::int64_t row) {
  const std::int64_t before = sequence.generated();
  std::optional<Result<Completion>> how =
      outcome.likeliest.empty()
          ? sequence.take_token({outcome.logits.row(row), static_cast<std::size_t>(outcome.logits.cols())})
          : sequence.take_likeliest(outcome.likeliest[static_cast<std::size_t>(row)]);
  counts_.generated_tokens += sequence.generated() - before;
  if (!how || *how) cache_.prove(sequence.chain);
  if (how) end(sequence, std::move(*how));
}

// --- ends

void EngineLoop::end(Sequence& sequence, Result<Completion> how) {
  const bool unwanted = !how && (how.error().code == Code::kCancelled || how.error().code == Code::kDeadlineExceeded);
  if (how || unwanted)
    cache_.release(sequence.chain);
  else
    cache_.discard(sequence.chain);
  close(sequence, std::move(how));
}

void EngineLoop::close(Sequence& sequence, Result<Completion> how) {
  if (how)
    ++counts_.finished;
  else if (how.error().code == Code::kCancelled)
    ++counts_.cancelled;
  else if (how.error().code == Code::kDeadlineExceeded)
    ++counts_.expired;
  else
    ++counts_.failed;
  if (!sequence.admitted) leave_queue(sequence);
  sequence.closed = true;
  publish();  // so that who hears of the end sees it counted
  sequence.end(std::move(how));
}

void EngineLoop::end_all(const Error& error) {
  for (Sequences* sequences : {&running_, &waiting_}) {
    for (const auto& sequence : *sequences)
      if (sequence != nullptr && !sequence->closed) close(*sequence, tl::unexpected(error));
    sequences->clear();
  }
  cache_.clear();
}

void EngineLoop::remove_closed(Sequences& sequences) {
  std::erase_if(sequences, [](const auto& sequence) { return sequence->closed; });
}

void EngineLoop::leave_queue(Sequence& sequence) {
  const std::lock_guard lock(mutex_);
  if (--sequence.group->unstarted == 0) --waiting_groups_;
}

// Zeros are as good as any finite values: their weight is zero.
void EngineLoop::clear_block(std::int32_t block, std::int64_t first_slot) {
  const KvShape& shape = pool_.shape();
  if (zeros_.rows() == 0) {
    Result<Buffer> zeros = ops_.allocate(kKvBlock, shape.kv_heads * shape.head_dim, ops_.activations());
    if (!zeros) throw std::bad_alloc();
    zeros_ = std::move(*zeros);
    ops_.upload(std::vector<float>(static_cast<std::size_t>(zeros_.size()), 0.0F), zeros_.view());
  }
  const ConstView rows = zeros_.view().row_range(0, kKvBlock - first_slot);
  const SequenceRows where{{&block, 1}, first_slot, rows.rows};
  const auto step = ops_.make_step({&where, 1}, shape.kv_heads, shape);
  if (!step) throw std::bad_alloc();
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) ops_.kv_write(rows, rows, **step, layer, pool_);
}

void EngineLoop::publish() {
  const auto open = [](const Sequences& sequences) {
    return std::count_if(sequences.begin(), sequences.end(),
                         [](const auto& sequence) { return sequence != nullptr && !sequence->closed; });
  };
  counts_.running = open(running_);
  counts_.waiting = open(waiting_);
  counts_.kv_blocks = cache_.blocks();
  counts_.kv_used = cache_.blocks() - cache_.available();
  counts_.kv_cached = cache_.cached();
  const std::lock_guard lock(mutex_);
  published_ = counts_;
}

}  // namespace chiasm
