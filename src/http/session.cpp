#include "http/session.h"

#include <algorithm>
#include <utility>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>

#include "base/secret.h"
#include "http/text.h"

namespace chiasm {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kSmallRead = 8 << 10;
constexpr std::size_t kLargeRead = 64 << 10;
constexpr std::size_t kMaxAhead = 64 << 10;  // of pipelined requests while one is answered
// How long and how much of what a client still sends is read after the last answer: closing at once would reset the
// connection, and the answer with it.
constexpr milliseconds kLinger{5'000};
constexpr std::size_t kMaxDiscarded = 64 << 20;
// A body is given as much room as came of it, so that who announces one and sends nothing costs nothing; and beside
// the body timeout a second for every so many bytes, so that one that trickles in ends too.
constexpr std::uint64_t kFirstHold = 64 << 10;
constexpr std::uint64_t kSlowestBody = 8 << 10;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

constexpr std::size_t kLongestId = 128;

// What the client calls its request, where that can be said in a header and a log line; else a name of ours.
std::string request_id_of(const Headers& headers) {
  const std::string_view given = headers.find("X-Request-Id").value_or("");
  const bool plain = !given.empty() && given.size() <= kLongestId &&
                     std::all_of(given.begin(), given.end(), [](char c) { return is_token_char(c) || c == ':'; });
  return plain ? std::string(given) : "req-" + random_hex(24);
}

}  // namespace

Session::Session(std::shared_ptr<ServerCore> core, std::unique_ptr<Transport> transport, std::string peer, bool refused)
    : core_(std::move(core)),
      transport_(std::move(transport)),
      timer_(transport_->executor()),
      peer_(std::move(peer)),
      refused_(refused) {
  ++(refused_ ? core_->refusals : core_->connections);
}

Session::~Session() {
  release();
  if (counted_) --(refused_ ? core_->refusals : core_->connections);
  core_->leave(this);
}

void Session::start() {
  asio::dispatch(transport_->executor(), [self = shared_from_this()] {
    if (!self->core_->enter(self.get(), self)) return self->close();
    self->arm(self->core_->options.header_timeout);
    self->transport_->handshake([self](Error error) {
      if (self->state_ != State::kHandshake) return;
      if (error) return self->close();
      self->begin();
    });
  });
}

void Session::shut() {
  asio::post(transport_->executor(), [self = shared_from_this()] {
    if (self->state_ == State::kClosed) return;
    if (self->state_ != State::kAnswer) return self->close();
    self->cut_ = true;
    self->client_left();
  });
}

void Session::begin() {
  client_name_ = transport_->client_name();
  if (!refused_) return next_request();
  arrived_ = Clock::now();
  refuse(503, "too many connections");
}

void Session::next_request() {
  state_ = State::kHead;
  parser_.emplace(core_->options.max_header, core_->options.max_headers);
  head_began_ = false;
  head_ = {};
  decoder_.reset();
  route_ = nullptr;
  request_bytes_ = response_bytes_ = 0;
  body_unread_ = handler_returned_ = false;
  delivered_ = false;
  arm(core_->options.idle_timeout);
  if (!in_.empty()) return on_bytes();
  // One large request must not keep its room for as long as the connection lives.
  if (in_.capacity() > kMaxAhead) std::string().swap(in_);
  read_more();
}

// ---- reading

void Session::read_more() {
  if (reading_ || state_ == State::kClosed || state_ == State::kLinger) return;
  if (state_ == State::kAnswer && in_.size() >= kMaxAhead) return;
  reading_ = true;
  const std::size_t size = state_ == State::kBody ? kLargeRead : kSmallRead;
  if (chunk_.size() != size) std::vector<char>(size).swap(chunk_);
  transport_->read_some(asio::buffer(chunk_), [self = shared_from_this()](Error error, std::size_t count) {
    self->reading_ = false;
    self->on_read(error, count);
  });
}

void Session::on_read(Error error, std::size_t count) {
  if (state_ == State::kClosed || state_ == State::kLinger) return;
  if (error) return client_left();
  in_.append(chunk_.data(), count);
  if (state_ == State::kAnswer) return read_more();
  on_bytes();
}

void Session::on_bytes() {
  if (state_ == State::kBody) return on_body();
  if (!head_began_) {
    head_began_ = true;
    arrived_ = Clock::now();
    arm(core_->options.header_timeout);
  }
  auto head = parser_->head(in_);
  if (!head) {
    body_unread_ = true;
    return refuse(head.error().status, head.error().message);
  }
  if (!*head) return read_more();
  on_head(std::move(**head));
}

void Session::on_head(RequestHead head) {
  disarm();
  in_.erase(0, head.bytes);
  head_ = std::move(head);
  request_bytes_ = head_.bytes;
  body_unread_ = head_.has_body();
  head_.request.peer = peer_;
  head_.request.client_name = client_name_;
  head_.request.id = request_id_of(head_.request.headers);
  head_.request.deadline = arrived_ + core_->options.request_timeout;
  if (const auto wish = head_.request.headers.find(core_->options.deadline_header)) {
    const auto given = decimal(*wish);
    if (!given || *given == 0)
      return refuse(400, core_->options.deadline_header + " must be a number of milliseconds, 1 or more");
    const auto most = static_cast<std::uint64_t>(core_->options.request_timeout.count());
    head_.request.deadline = arrived_ + milliseconds(std::min(*given, most));
  }
  answer_head();
}

// What can be said before the body is read. Nothing of it waits.
void Session::answer_head() {
  auto match = core_->router.match(head_.request.method, head_.segments);
  route_ = match.route;
  if (route_ == nullptr && match.allow.empty()) return reply(core_->error(404, "there is nothing here"), false);
  if (route_ == nullptr) {
    HttpResponse response = core_->error(405, "this path has no such method");
    response.headers.set("Allow", match.allow);
    return reply(std::move(response), false);
  }
  head_.request.captures = std::move(match.captures);
  if (route_->lane == Route::Lane::kWork && core_->draining) return refuse(503, "the server is shutting down");
  if (auto answer = ask_gate()) return reply(std::move(*answer), false);
  if (head_.has_body() && (route_->max_body == 0 || head_.content_length > route_->max_body))
    return refuse(413, route_->max_body == 0 ? "this takes no body" : "the body is too large");
  if (!hold_bytes(std::min(head_.content_length, kFirstHold))) return refuse(503, "the server holds too much already");
  permit_ = core_->lane(route_->lane).take();
  if (!permit_) return refuse(503, "the server is busy");
  if (!head_.has_body()) return dispatch();

  state_ = State::kBody;
  decoder_.emplace(head_.body_decoder(route_->max_body));
  body_began_ = Clock::now();
  arm(core_->options.body_timeout);
  if (head_.expects_continue && in_.empty()) {
    out_ = kContinue;
    out_sent_ = 0;
    interim_ = true;
    pump();
  }
  on_body();
}

std::optional<HttpResponse> Session::ask_gate() {
  if (!core_->options.gate) return std::nullopt;
  try {
    return core_->options.gate(head_.request, *route_);
  } catch (const std::exception& thrown) {
    core_->failed(thrown.what());
  } catch (...) {
    core_->failed("the gate threw something unknown");
  }
  return core_->error(500, "internal error");
}

bool Session::hold_bytes(std::uint64_t count) {
  if (count <= held_bytes_) return true;
  if (!core_->take_bytes(count - held_bytes_)) return false;
  held_bytes_ = count;
  return true;
}

void Session::on_body() {
  std::string_view bytes = in_;
  const BodyDecoder::Verdict verdict = decoder_->feed(bytes, head_.request.body);
  const std::size_t used = in_.size() - bytes.size();
  request_bytes_ += used;
  in_.erase(0, used);
  switch (verdict) {
    case BodyDecoder::Verdict::kMalformed: return refuse(400, "the body's chunks are malformed");
    case BodyDecoder::Verdict::kTooLarge: return refuse(413, "the body is too large");
    case BodyDecoder::Verdict::kMore:
    case BodyDecoder::Verdict::kDone: break;
  }
  const std::string& body = head_.request.body;
  if (!hold_bytes(head_.chunked ? body.capacity() : body.size()))
    return refuse(503, "the server holds too much already");
  if (verdict == BodyDecoder::Verdict::kDone) {
    body_unread_ = false;
    return dispatch();
  }
  const auto& timeout = core_->options.body_timeout;
  const Deadline slowest = body_began_ + timeout + milliseconds(1000 * head_.request.body.size() / kSlowestBody);
  const auto left = std::chrono::duration_cast<milliseconds>(std::min(head_.request.deadline, slowest) - Clock::now());
  arm(std::clamp(left, milliseconds(0), timeout));
  read_more();
}

// ---- answering

std::shared_ptr<Answer> Session::make_answer(bool keep_alive) {
  Answer::Setting setting;
  setting.http_1_0 = head_.http_1_0;
  setting.keep_alive = keep_alive;
  setting.head_only = head_.request.method == "HEAD";
  setting.closing = [core = core_.get()] { return core->draining.load(); };
  // The session lives as long as its handler runs, and nothing calls this afterwards.
  setting.wake = [this] { asio::post(transport_->executor(), [self = shared_from_this()] { self->pump(); }); };
  setting.error = [core = core_.get()] { return core->error(500, "internal error"); };
  setting.complain = [core = core_.get()](std::string_view what) { core->failed(what); };
  return std::make_shared<Answer>(std::move(head_.request), std::move(setting));
}

void Session::dispatch() {
  disarm();
  state_ = State::kAnswer;
  answer_ = make_answer(head_.keep_alive);
  const bool runs =
      core_->lane(route_->lane).run([self = shared_from_this(), answer = answer_] { self->handle(answer); });
  if (!runs) {
    answer_->respond(core_->error(503, "the server has no thread left"));
    handler_returned_ = true;
  }
  read_more();
}

// On a thread of the lane.
void Session::handle(const std::shared_ptr<Answer>& answer) {
  std::optional<std::string> thrown;
  try {
    route_->handler(*answer);
  } catch (const std::exception& error) {
    thrown = error.what();
  } catch (...) {
    thrown = "a handler threw something unknown";
  }
  answer->returned(std::move(thrown));
  asio::post(transport_->executor(), [self = shared_from_this()] {
    self->handler_returned_ = true;
    self->core_->give_bytes(std::exchange(self->held_bytes_, 0));
    // What is left to do costs no thread: readers that take their time must not keep health checks out.
    if (self->route_->lane == Route::Lane::kControl) self->release();
    self->check_finished();
  });
}

void Session::reply(HttpResponse response, bool close) {
  disarm();
  release();
  state_ = State::kAnswer;
  answer_ = make_answer(head_.keep_alive && !close && !body_unread_);
  handler_returned_ = true;
  answer_->respond(std::move(response));
  read_more();
}

void Session::pump() {
  if (writing_ || state_ == State::kClosed || state_ == State::kLinger || left_) return;
  if (out_sent_ == out_.size()) {
    out_.clear();
    out_sent_ = 0;
    auto bytes = answer_ == nullptr ? std::nullopt : answer_->next();
    if (!bytes) {
      if (state_ == State::kAnswer) disarm();
      return check_finished();
    }
    out_ = std::move(*bytes);
    interim_ = false;
  }
  writing_ = true;
  if (state_ == State::kAnswer) arm(core_->options.write_timeout);
  transport_->write_some(asio::buffer(out_) + out_sent_, [self = shared_from_this()](Error error, std::size_t count) {
    self->writing_ = false;
    self->on_written(error, count);
  });
}

void Session::on_written(Error error, std::size_t count) {
  if (state_ == State::kClosed || left_) return check_finished();
  if (error) return client_left();
  out_sent_ += count;
  if (!interim_) {
    response_bytes_ += count;
    answer_->sent(count);
  }
  pump();
}

void Session::check_finished() {
  if (state_ != State::kAnswer || !handler_returned_ || writing_) return;
  const Answer::Outcome outcome = answer_->outcome();
  if (!left_ && (!outcome.finished || out_sent_ < out_.size())) return;
  report();
  release();
  answer_.reset();
  if (left_) return close();
  if (outcome.keep_alive && !body_unread_) return next_request();
  linger();
}

void Session::report() {
  const HttpRequest& request = answer_ != nullptr ? answer_->request() : head_.request;
  AccessRecord record;
  record.method = request.method;
  record.route = route_ != nullptr ? std::string_view(route_->pattern) : std::string_view();
  record.path = request.path;
  record.peer = peer_;
  record.request_id = request.id;
  record.status = answer_ != nullptr ? answer_->outcome().status : 0;
  record.request_bytes = request_bytes_;
  record.response_bytes = response_bytes_;
  record.ms = std::chrono::duration<double, std::milli>(Clock::now() - arrived_).count();
  record.client_left = left_ && !cut_ && !delivered_;
  record.cut = left_ && cut_ && !delivered_;
  core_->done(record);
}

void Session::release() {
  core_->give_bytes(std::exchange(held_bytes_, 0));
  if (std::exchange(permit_, false)) core_->lane(route_->lane).give();
}

// ---- the end

void Session::client_left() {
  if (state_ == State::kBody || (state_ == State::kHead && head_began_)) {
    left_ = true;
    report();
    release();
    return close();
  }
  if (state_ != State::kAnswer) return close();
  if (std::exchange(left_, true)) return;
  // A client may close once it has the whole answer, before the handler has come back.
  delivered_ = answer_->outcome().finished && out_sent_ == out_.size() && !writing_;
  disarm();
  transport_->close();
  answer_->leave();
  check_finished();
}

void Session::linger() {
  state_ = State::kLinger;
  std::string().swap(in_);
  std::string().swap(out_);
  arm(kLinger);
  transport_->finish([self = shared_from_this()] {
    if (self->state_ != State::kLinger) return;
    self->discard();
  });
}

void Session::discard() {
  // A read of before may still be pending on the other buffer; it brings nothing that is wanted.
  auto room = std::make_shared<std::vector<char>>(kLargeRead);
  const auto into = asio::buffer(*room);
  transport_->discard_some(into, [self = shared_from_this(), room](Error error, std::size_t count) {
    if (self->state_ != State::kLinger) return;
    self->discarded_ += count;
    if (error || self->discarded_ > kMaxDiscarded) return self->close();
    self->discard();
  });
}

void Session::close() {
  state_ = State::kClosed;
  disarm();
  transport_->close();
  if (std::exchange(counted_, false)) --(refused_ ? core_->refusals : core_->connections);
}

// ---- time

void Session::arm(milliseconds time) {
  timer_.expires_after(time);
  timer_.async_wait([self = shared_from_this(), turn = ++timer_turn_](Error error) {
    if (!error && turn == self->timer_turn_) self->on_timeout();
  });
}

void Session::disarm() {
  ++timer_turn_;
  timer_.cancel();
}

void Session::on_timeout() {
  switch (state_) {
    case State::kHead:
      if (!head_began_) return close();
      body_unread_ = true;
      return refuse(408, "the request's headers did not come in time");
    case State::kBody: return refuse(408, "the request's body did not come in time");
    case State::kAnswer: return client_left();  // it does not read
    case State::kHandshake:
    case State::kLinger: return close();
    case State::kClosed: return;
  }
}

}  // namespace chiasm
