// The thread that computes: takes what was submitted, fills steps with it, hands out tokens.
//
// What a step holds is decided by the scheduler (scheduler.h), what need not be computed by the prefix cache. A
// sequence whose beginning another one is computing waits for it and goes on from there. Nothing that goes wrong in one
// sequence ends another: a step that fails is tried again one sequence at a time.
// Thread contract: public methods may be called from any thread; all else happens on the loop's own, which starts with
// the first enqueue and sleeps while nothing is open.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/right_of_way.h"
#include "language/pace.h"
#include "language/prefix_cache.h"
#include "language/scheduler.h"
#include "language/sequence.h"
#include "language/step_batch.h"
#include "models/language_model.h"

namespace chiasm {

struct StepReport {
  std::int64_t prefill_tokens = 0, decode_tokens = 0;
  double ms = 0;
  double pause_ms = 0;  // before it, left to those behind
};

struct LoopOptions {
  std::int64_t step_tokens = 512, max_sequences = 64, max_waiting = 256;
  double stall_ms = 0;        // as EngineOptions::stall_ms
  RightOfWay* way = nullptr;  // as EngineOptions::way
  bool share_prefix = true;
  std::function<void(const StepReport&)> on_step;  // from the loop's thread; must not block; may be null
};

// What the engine is at, and what it has done since it began: counters never fall.
struct EngineStatus {
  std::int64_t running = 0, waiting = 0;  // sequences
  std::int64_t kv_blocks = 0;             // of the pool
  std::int64_t kv_used = 0;               // held by running sequences
  std::int64_t kv_cached = 0;             // held by nobody, kept for who begins alike

  std::int64_t steps = 0;
  std::int64_t submitted = 0, finished = 0, cancelled = 0, expired = 0, failed = 0;  // sequences, by how they ended
  std::int64_t refused = 0;                                                          // "queue full"
  std::int64_t preemptions = 0;
  std::int64_t prompt_tokens = 0, generated_tokens = 0;
  std::int64_t prefilled_tokens = 0;  // prompt tokens that were computed, those of preempted sequences again
  std::int64_t prefix_queried_tokens = 0, prefix_hit_tokens = 0;
};

class EngineLoop {
 public:
  // All but `options` must outlive the loop.
  EngineLoop(const LanguageModel& model, const Ops& ops, KvPool& pool, LoopOptions options);
  ~EngineLoop();

  // Sequences that belong together, in order; they count once against max_waiting. kResourceExhausted "queue full",
  // kUnavailable after shutdown.
  Status enqueue(std::vector<std::unique_ptr<Sequence>> sequences);

  EngineStatus status() const;

  // What is open ends with kUnavailable after the step that runs. Does not wait.
  void close();
  // close(), and waits for it. Not from the loop's own thread.
  void shutdown();

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;  // in order of arrival

  void run();
  bool take_in();
  void turn();
  void drop_unwanted(Sequences& sequences);
  void admit_waiting();
  void join(Sequence& sequence, const PrefixCache::Match& match);
  bool prefix_under_way(const Sequence& waiting) const;
  std::vector<RunningNumbers> running_numbers() const;
  std::int64_t token_budget(std::span<const RunningNumbers> running) const;
  RightOfWay* pause_before(const StepReport& planned) const;
  void preempt(std::size_t index);
  void step();
  // What a step came to for each of its sequences that samples: logits, or the likeliest tokens where that is enough.
  struct Outcome {
    Matrix logits;
    std::vector<std::int32_t> likeliest;  // empty: see logits
  };
  Result<Outcome> compute(std::span<const SequenceStep> steps);
  void accept(std::span<const SequenceStep> steps, Outcome& outcome, double ms);
  void sample(Sequence& sequence, Outcome& outcome, std::int64_t row);
  void end(Sequence& sequence, Result<Completion> how);
  void close(Sequence& sequence, Result<Completion> how);
  void end_all(const Error& error);
  static void remove_closed(Sequences& sequences);
  void leave_queue(Sequence& sequence);
  void clear_block(std::int32_t block, std::int64_t first_slot);
  void publish();

  const LanguageModel& model_;
  const Ops& ops_;
  KvPool& pool_;
  const LoopOptions options_;

  // The loop's own.
  PrefixCache cache_;
  Sequences waiting_, running_;
  Pace pace_;
  Buffer zeros_;
  EngineStatus counts_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Sequences inbox_;
  EngineStatus published_;
  std::int64_t waiting_groups_ = 0;
  std::int64_t submitted_ = 0, refused_ = 0;
  std::uint64_t arrivals_ = 0;
  bool stop_ = false;
  std::mutex thread_mutex_;
  std::thread thread_;
};

}  // namespace chiasm
