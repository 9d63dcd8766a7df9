// The generations of one HTTP request: begun together, heard of in one queue, dropped when the client leaves.
//
// Thread contract: one handler's thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/chat_response.h"
#include "http/server.h"
#include "roles/event_queue.h"
#include "roles/language_side.h"
#include "roles/picture_desk.h"

namespace chiasm {

class Answering {
 public:
  using Queue = EventQueue<GenerationEvent>;

  explicit Answering(Exchange& exchange);
  ~Answering();  // what still runs is cancelled
  Answering(const Answering&) = delete;
  Answering& operator=(const Answering&) = delete;

  // Raised when the client leaves; for the work before submit().
  const CancelFlag& left() const;

  // All are admitted together, or none.
  ApiResult<void> submit(LanguageSide& side, std::vector<GenerationRequest> requests);

  // The next event of any of them; nothing: none came until then.
  std::optional<Queue::Item> next(Deadline until);

 private:
  struct Shared;  // with the threads that call back
  const std::shared_ptr<Shared> shared_;
};

// The writing side of a stream: begun when there is something to say, or when the client has waited long enough to need
// a sign of life.
class EventStream {
 public:
  explicit EventStream(Exchange& exchange) : exchange_(exchange) {}

  bool begun() const { return begun_; }
  // False once the client left.
  bool send(std::string_view json);
  bool ping();
  // An error as an event; before the stream has begun, as an answer of its own status.
  void fail(const ApiError& error);
  void done();  // "[DONE]"

 private:
  bool write(std::string_view text);

  Exchange& exchange_;
  bool begun_ = false;
};

// Clients, and proxies between, take silence for death after a while.
inline constexpr std::chrono::seconds kPingEvery{15};

// The pictures of a request; where `stream` is given, the client gets its sign of life while it waits for them.
ApiResult<LookedPictures> look_with_pings(const PictureDesk& desk, std::span<const ContentPart* const> parts,
                                          const LookContext& context, EventStream* stream,
                                          std::chrono::milliseconds every = kPingEvery);

// Of one token, in the API's words.
TokenLogprobs token_logprobs(const Tokenizer& tokenizer, const Logprobs& logprobs);
std::string_view finish_reason_name(FinishReason reason);
AnswerTiming timing_of(const Completion& completion, double vision_ms);
AnswerUsage usage_of(const Completion& completion);
// An error that ended a generation.
ApiError generation_error(const Error& error);

}  // namespace chiasm
