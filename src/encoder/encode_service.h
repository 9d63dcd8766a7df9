// The queue between requests and the vision model: pictures are admitted by their tokens, decoded by a few of the
// calling threads at a time, and encoded by one thread, all that are ready in one pass.
//
// First come, first served at each stage. A pass is never interrupted; before it, a request whose deadline passed or
// whose flag was raised is dropped and costs nothing more. Thread contract: encode() and status() may be called from
// any thread; no call may be running when the service is destroyed.
//
// Memory beside what the callers hold: decode_threads decoded pictures; the pixel_values of at most max_batch_patches
// that are decoding or ready (or of one larger picture), and, of a pass, twice the pixel_values of as many and what
// VisionModel::encode takes for them. It does not grow with the number of requests that wait.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "encoder/encoder.h"

namespace chiasm {

// One pass through the model, told on the thread that made it.
struct EncodePass {
  std::int64_t pictures = 0, patches = 0;
  double ms = 0;
};

struct EncodeServiceOptions {
  std::int64_t max_queued_tokens = 65536;          // of all pictures that are in the service; one alone may have more
  std::int64_t max_picture_tokens = 32768;         // of one picture or video
  std::int64_t max_batch_patches = 8192;           // of a pass; one picture alone may have more
  int decode_threads = 2;                          // that decode, resize and patchify at a time
  std::function<void(const EncodePass&)> on_pass;  // may be null; the next pass waits for it
  bool background = false;                         // passes run on a thread of lower priority (base/priority.h)
};

struct EncodeServiceStatus {
  std::int64_t queued_pictures = 0, queued_tokens = 0;  // in the service now, those in the running pass included
  std::int64_t ready_pictures = 0;                      // of them, waiting for a pass
  // Since the start.
  std::uint64_t batches = 0, pictures = 0, patches = 0;  // passes, and what went through them
  std::uint64_t refused = 0;                             // because the queue was full
  std::uint64_t dropped = 0;                             // deadline passed or flag raised
  std::uint64_t failed = 0;                              // admitted, but not to be decoded or encoded
  double busy_ms = 0;                                    // in passes
};

class EncodeService {
 public:
  // `encoder` must outlive the service.
  explicit EncodeService(const Encoder& encoder, EncodeServiceOptions options = {});
  ~EncodeService();
  EncodeService(const EncodeService&) = delete;
  EncodeService& operator=(const EncodeService&) = delete;

  // Blocks until the picture is encoded. `cancel` may be null. Errors: those of Encoder::plan and decode;
  // kInvalidArgument for a picture of more than max_picture_tokens; kResourceExhausted at once when the queue is full;
  // kDeadlineExceeded, kCancelled.
  Result<EncodedPicture> encode(PictureFiles files, const PixelBounds& bounds, Deadline deadline,
                                const CancelFlag* cancel);

  EncodeServiceStatus status() const;

 private:
  enum class Stage : std::uint8_t { kWaiting, kDecoding, kReady, kEncoding, kDone };
  struct Job;

  Status admit(Job& job);
  Result<EncodedPicture> carry(Job& job, PictureFiles files, const PicturePlan& plan,
                               std::unique_lock<std::mutex>& lock);
  Status wait_for(Job& job, Stage stage, std::unique_lock<std::mutex>& lock);
  void start_decoding();
  void make_ready(Job& job);
  std::vector<Job*> next_batch();
  void run();
  std::vector<Result<EncodedPicture>> encode_batch(std::span<Job* const> batch) const;

  const Encoder& encoder_;
  const EncodeServiceOptions options_;

  mutable std::mutex mutex_;  // all that follows
  std::condition_variable work_;
  std::deque<Job*> waiting_;  // for their turn to decode
  std::deque<Job*> ready_;    // for a pass, in the order of admission
  int decoding_ = 0;
  std::int64_t held_patches_ = 0;  // decoding or ready
  std::uint64_t admitted_ = 0;
  bool stop_ = false;
  EncodeServiceStatus counts_;

  std::thread device_;  // last: it uses all of the above
};

}  // namespace chiasm
