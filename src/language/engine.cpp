#include "language/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace chiasm {
namespace {

constexpr std::uint64_t kUsualPool = 4ULL << 30;

std::string question(std::size_t index) { return fmt::format("question {}", index + 1); }

// Events on their way from the engine's thread to the one that waits in run().
class Mailbox {
 public:
  void put(std::size_t request, GenerationEvent&& event) {
    {
      const std::lock_guard lock(mutex_);
      events_.emplace_back(request, std::move(event));
    }
    filled_.notify_one();
  }
  std::pair<std::size_t, GenerationEvent> take() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [&] { return !events_.empty(); });
    auto out = std::move(events_.front());
    events_.pop_front();
    return out;
  }

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<std::pair<std::size_t, GenerationEvent>> events_;
};

// Nobody is left to hear what they say, should the caller's callback throw.
struct CancelAll {
  const std::vector<std::shared_ptr<Generation>>& generations;
  ~CancelAll() {
    for (const auto& generation : generations) generation->cancel();
  }
};

// It leaves the processors to whoever wants them.
bool computes_on_card(const Ops& ops) { return ops.free_for_kv().has_value(); }

Result<std::unique_ptr<KvPool>> make_pool(const LanguageModel& model, const Ops& ops, const EngineOptions& options) {
  const std::uint64_t block = ops.kv_block_bytes(model.kv_shape(1));
  const auto longest = static_cast<std::uint64_t>(kv_blocks_for(model.config().max_position_embeddings));
  // Never more than every sequence at its full length could use.
  const std::uint64_t useful = longest * (static_cast<std::uint64_t>(options.max_sequences) + 1);
  const auto make = [&](std::uint64_t blocks) {
    return ops.make_kv_pool(model.kv_shape(static_cast<std::int64_t>(std::min(blocks, useful))));
  };
  if (options.kv_bytes != 0) {
    if (options.kv_bytes / block == 0)
      return fail(Code::kInvalidArgument,
                  "kv_bytes: expected at least the {} bytes of a KV block of this model, got {}", block,
                  options.kv_bytes);
    return make(options.kv_bytes / block);
  }
  if (const auto free = ops.free_for_kv()) {
    // A quarter is left to what a step, or a vision encoder on the same card, takes. Another process may be quicker.
    std::uint64_t blocks = std::clamp<std::uint64_t>(*free / 4 * 3 / block, 1, useful);
    auto pool = make(blocks);
    while (!pool && pool.error().code == Code::kResourceExhausted && blocks > 1) pool = make(blocks /= 2);
    return pool;
  }
  // The longest sequence and a beginning that others share: a block of it that is not full is there twice.
  const std::uint64_t usual = std::max<std::uint64_t>(1, kUsualPool / block), wanted = std::max(usual, longest + 1);
  auto pool = make(wanted);
  if (!pool && usual < wanted) pool = make(usual);  // a system that counts address space
  return pool;
}

}  // namespace

Engine::Engine(const LanguageModel& model, const Tokenizer& tokenizer, const EngineOptions& options,
               std::unique_ptr<KvPool> pool, const Ops& ops)
    : model_(model),
      tokenizer_(tokenizer),
      block_bytes_(ops.kv_block_bytes(model.kv_shape(1))),
      pool_(std::move(pool)),
      loop_(std::make_unique<EngineLoop>(model, ops, *pool_,
                                         LoopOptions{.step_tokens = options.step_tokens,
                                                     .max_sequences = options.max_sequences,
                                                     .max_waiting = options.max_waiting,
                                                     .stall_ms = options.stall_ms,
                                                     .way = computes_on_card(ops) ? nullptr : options.way,
                                                     .share_prefix = options.share_prefix,
                                                     .on_step = options.on_step})) {}

Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::create(const LanguageModel& model, const Tokenizer& tokenizer, const Ops& ops,
                                               const EngineOptions& options) {
  if (options.step_tokens < 1 || options.max_sequences < 1)
    return fail(Code::kInvalidArgument, "expected at least 1 token a step and 1 sequence, got {} and {}",
                options.step_tokens, options.max_sequences);
  if (!(options.stall_ms >= 0))
    return fail(Code::kInvalidArgument, "stall_ms: expected 0 or more, got {}", options.stall_ms);
  if (options.max_waiting < 1)
    return fail(Code::kInvalidArgument, "max_waiting: expected at least 1, got {}", options.max_waiting);
  ASSIGN_OR_RETURN(std::unique_ptr<KvPool> pool, make_pool(model, ops, options));
  return std::unique_ptr<Engine>(new Engine(model, tokenizer, options, std::move(pool), ops));
}

std::int64_t Engine::capacity() const { return pool_->shape().blocks * kKvBlock; }

Status Engine::check_fits_pool(const GenerationRequest& request) const {
  const std::int64_t prompt = request.prompt.size();
  const std::int64_t answer = std::min(request.max_tokens, model_.config().max_position_embeddings - prompt);
  if (prompt + answer <= capacity()) return {};
  return fail(Code::kResourceExhausted,
              "the prompt has {} tokens and the answer may have {}: they need {} bytes of KV pool, this one has {}; "
              "give it more (kv_bytes), or ask for smaller pictures or fewer max_tokens",
              prompt, answer, static_cast<std::uint64_t>(kv_blocks_for(prompt + answer)) * block_bytes_,
              static_cast<std::uint64_t>(pool_->shape().blocks) * block_bytes_);
}

Status Engine::check(const GenerationRequest& request) const {
  RETURN_IF_ERROR(check_request(request, model_.config()));
  return check_fits_pool(request);
}

Result<std::shared_ptr<Generation>> Engine::submit(GenerationRequest request, OnEvent on_event) {
  RETURN_IF_ERROR(check(request));
  std::vector<std::unique_ptr<Sequence>> sequences;
  sequences.push_back(std::make_unique<Sequence>(std::move(request), std::move(on_event), model_.config(), tokenizer_));
  std::shared_ptr<Generation> out = sequences.front()->handle;
  RETURN_IF_ERROR(loop_->enqueue(std::move(sequences)));
  return out;
}

Result<std::vector<std::shared_ptr<Generation>>> Engine::submit_all(std::vector<GenerationRequest> requests,
                                                                    OnEventOf on_event) {
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (auto status = check(requests[i]); !status) return fail_in(question(i), status.error());
  const auto shared = std::make_shared<const OnEventOf>(std::move(on_event));
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<std::shared_ptr<Generation>> out;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    OnEvent one = nullptr;
    if (*shared) one = [shared, i](GenerationEvent&& event) { (*shared)(i, std::move(event)); };
    sequences.push_back(
        std::make_unique<Sequence>(std::move(requests[i]), std::move(one), model_.config(), tokenizer_));
    out.push_back(sequences.back()->handle);
  }
  RETURN_IF_ERROR(loop_->enqueue(std::move(sequences)));
  return out;
}

Result<std::vector<Completion>> Engine::run(std::span<const GenerationRequest> requests, const OnText& on_text) {
  const auto mailbox = std::make_shared<Mailbox>();
  ASSIGN_OR_RETURN(const auto generations,
                   submit_all({requests.begin(), requests.end()}, [mailbox](std::size_t i, GenerationEvent&& event) {
                     mailbox->put(i, std::move(event));
                   }));
  const CancelAll on_leaving{generations};
  std::vector<Completion> out(requests.size());
  std::optional<tl::unexpected<Error>> failed;
  for (std::size_t open = requests.size(); open > 0;) {  // every one of them ends: the engine sees to it
    auto [i, event] = mailbox->take();
    if (on_text && !event.text.empty() && !failed) on_text(i, event.text);
    if (!event.end) continue;
    --open;
    if (*event.end) {
      out[i] = std::move(**event.end);
    } else if (!failed) {
      failed = fail_in(question(i), event.end->error());
      for (const auto& generation : generations) generation->cancel();
    }
  }
  if (failed) return *failed;
  return out;
}

}  // namespace chiasm
