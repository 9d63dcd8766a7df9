#include "encoder/encode_service.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/priority.h"
#include "base/stopwatch.h"

namespace chiasm {
namespace {

// A flag wakes nobody: those who have one look at it this often.
constexpr std::chrono::milliseconds kLook{50};

Status check_wanted(Deadline deadline, const CancelFlag* cancel) {
  if (cancel != nullptr && *cancel)
    return fail(Code::kCancelled, "the request was withdrawn before its picture's turn");
  if (deadline <= std::chrono::steady_clock::now())
    return fail(Code::kDeadlineExceeded, "the deadline passed before the picture was encoded");
  return {};
}

}  // namespace

// One call of encode(), on its caller's stack: the caller leaves only when no list and no pass knows it any more.
struct EncodeService::Job {
  std::int64_t tokens = 0, patches = 0;
  Deadline deadline;
  const CancelFlag* cancel;
  std::uint64_t number = 0;  // in the order of admission
  Stage stage = Stage::kWaiting;
  std::condition_variable changed{};
  PreparedPicture picture{};
  std::optional<Result<EncodedPicture>> result{};

  Status check_wanted() const { return chiasm::check_wanted(deadline, cancel); }

  // Called with the service's lock held: the caller's stack is there until it is let go.
  void enter(Stage next) {
    stage = next;
    changed.notify_one();
  }
  void finish(Result<EncodedPicture> with) {
    result = std::move(with);
    enter(Stage::kDone);
  }
};

EncodeService::EncodeService(const Encoder& encoder, EncodeServiceOptions options)
    : encoder_(encoder), options_(std::move(options)) {
  CHECK(options_.decode_threads > 0);
  device_ = std::thread([this] { run(); });
}

EncodeService::~EncodeService() {
  {
    const std::lock_guard lock(mutex_);
    CHECK(counts_.queued_pictures == 0);
    stop_ = true;
  }
  work_.notify_one();
  device_.join();
}

Result<EncodedPicture> EncodeService::encode(PictureFiles files, const PixelBounds& bounds, Deadline deadline,
                                             const CancelFlag* cancel) {
  ASSIGN_OR_RETURN(const PicturePlan plan, encoder_.plan(files, bounds));
  Job job{.tokens = plan.rows, .patches = plan.grid.patches(), .deadline = deadline, .cancel = cancel};
  std::unique_lock lock(mutex_);
  RETURN_IF_ERROR(admit(job));
  Result<EncodedPicture> out = carry(job, files, plan, lock);
  counts_.queued_tokens -= job.tokens;
  --counts_.queued_pictures;
  if (!out) {
    const Code code = out.error().code;
    ++(code == Code::kCancelled || code == Code::kDeadlineExceeded ? counts_.dropped : counts_.failed);
  }
  return out;
}

Status EncodeService::admit(Job& job) {
  if (job.tokens > options_.max_picture_tokens)
    return fail(Code::kInvalidArgument, "expected a picture of at most {} tokens, its size gives {}",
                options_.max_picture_tokens, job.tokens);
  if (auto wanted = job.check_wanted(); !wanted) {
    ++counts_.dropped;
    return wanted;
  }
  // As a difference: neither side can overflow.
  if (counts_.queued_pictures > 0 && job.tokens > options_.max_queued_tokens - counts_.queued_tokens) {
    ++counts_.refused;
    return fail(Code::kResourceExhausted, "queue full: {} of {} tokens are waiting, the picture has {}",
                counts_.queued_tokens, options_.max_queued_tokens, job.tokens);
  }
  waiting_.push_back(&job);
  counts_.queued_tokens += job.tokens;
  ++counts_.queued_pictures;
  job.number = admitted_++;
  start_decoding();
  return {};
}

// Through all stages; on return the job is on no list.
Result<EncodedPicture> EncodeService::carry(Job& job, PictureFiles files, const PicturePlan& plan,
                                            std::unique_lock<std::mutex>& lock) {
  if (auto turn = wait_for(job, Stage::kDecoding, lock); !turn) {
    std::erase(waiting_, &job);
    start_decoding();  // the next one may be smaller
    return tl::unexpected(std::move(turn).error());
  }
  Result<PreparedPicture> prepared = fail(Code::kInternal, "not prepared");
  if (auto wanted = job.check_wanted(); !wanted) {
    prepared = tl::unexpected(std::move(wanted).error());
  } else {
    lock.unlock();
    try {
      prepared = encoder_.prepare(files, plan);
    } catch (const std::exception& e) {
      prepared = fail(Code::kResourceExhausted, "the picture could not be prepared: {}", e.what());
    }
    lock.lock();
  }
  --decoding_;
  if (!prepared) {
    held_patches_ -= job.patches;
    start_decoding();
    return tl::unexpected(std::move(prepared).error());
  }
  job.picture = *std::move(prepared);
  make_ready(job);
  start_decoding();
  if (auto turn = wait_for(job, Stage::kEncoding, lock); !turn) {
    std::erase(ready_, &job);
    held_patches_ -= job.patches;
    start_decoding();
    return tl::unexpected(std::move(turn).error());
  }
  // No deadline: the pass is under way and ends. What it makes is kept by whoever asked, though nobody may wait for it.
  job.changed.wait(lock, [&] { return job.stage == Stage::kDone; });
  return *std::move(job.result);
}

// Until the job is at `stage` or beyond it.
Status EncodeService::wait_for(Job& job, Stage stage, std::unique_lock<std::mutex>& lock) {
  while (job.stage < stage) {
    RETURN_IF_ERROR(job.check_wanted());
    const Deadline until = job.cancel == nullptr ? job.deadline : sooner(job.deadline, kLook);
    if (until == kNoDeadline) {
      job.changed.wait(lock);
    } else {
      job.changed.wait_until(lock, until);
    }
  }
  return {};
}

// Gives turns to those who wait longest, as long as there are permits and what is decoding or ready fits into one pass.
void EncodeService::start_decoding() {
  while (!waiting_.empty() && decoding_ < options_.decode_threads) {
    Job& next = *waiting_.front();
    if (held_patches_ > 0 && next.patches > options_.max_batch_patches - held_patches_) return;
    waiting_.pop_front();
    ++decoding_;
    held_patches_ += next.patches;
    next.enter(Stage::kDecoding);
  }
}

// A small picture may overtake a large one while both are decoded; it does not in the queue for the pass.
void EncodeService::make_ready(Job& job) {
  job.stage = Stage::kReady;
  const auto later = [](const Job* a, const Job* b) { return a->number < b->number; };
  ready_.insert(std::upper_bound(ready_.begin(), ready_.end(), &job, later), &job);
  work_.notify_one();
}

// All that is ready and still wanted. That they fit into a pass together was seen to when they were given their turn to
// be decoded.
std::vector<EncodeService::Job*> EncodeService::next_batch() {
  std::vector<Job*> out;
  for (Job* job : ready_) {
    held_patches_ -= job->patches;
    if (auto wanted = job->check_wanted(); !wanted) {
      job->finish(tl::unexpected(std::move(wanted).error()));
    } else {
      job->enter(Stage::kEncoding);
      out.push_back(job);
    }
  }
  ready_.clear();
  return out;
}

std::vector<Result<EncodedPicture>> EncodeService::encode_batch(std::span<Job* const> batch) const try {
  std::vector<PreparedPicture> pictures;
  pictures.reserve(batch.size());
  for (Job* job : batch) pictures.push_back(std::move(job->picture));
  return encoder_.encode_prepared(pictures);
} catch (const std::exception& e) {
  std::vector<Result<EncodedPicture>> out;
  for (std::size_t i = 0; i < batch.size(); ++i)
    out.push_back(fail(Code::kResourceExhausted, "the vision encoder failed: {}", e.what()));
  return out;
}

void EncodeService::run() {
  if (options_.background) lower_priority();
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stop_ || !ready_.empty(); });
    if (stop_) return;
    const std::vector<Job*> batch = next_batch();
    start_decoding();  // the next pictures, while these are encoded
    if (batch.empty()) continue;
    EncodePass pass{.pictures = static_cast<std::int64_t>(batch.size())};
    for (const Job* job : batch) pass.patches += job->patches;
    lock.unlock();
    const Stopwatch watch;
    std::vector<Result<EncodedPicture>> results = encode_batch(batch);
    pass.ms = watch.ms();
    lock.lock();
    ++counts_.batches;
    counts_.pictures += batch.size();
    counts_.patches += static_cast<std::uint64_t>(pass.patches);
    counts_.busy_ms += pass.ms;
    for (std::size_t i = 0; i < batch.size(); ++i) batch[i]->finish(std::move(results[i]));
    if (!options_.on_pass) continue;
    lock.unlock();
    options_.on_pass(pass);
    lock.lock();
  }
}

EncodeServiceStatus EncodeService::status() const {
  const std::lock_guard lock(mutex_);
  EncodeServiceStatus out = counts_;
  out.ready_pictures = static_cast<std::int64_t>(ready_.size());
  return out;
}

}  // namespace chiasm
