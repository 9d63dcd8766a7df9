#include "http/answer.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "http/text.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxUnsent = 256 << 10;
constexpr std::size_t kPiece = 64 << 10;
constexpr std::size_t kJoined = 16 << 10;  // a body up to this goes with its head in one write

std::string_view reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "Status";
  }
}

// Where a message ends is this folder's to say.
bool is_framing(std::string_view name) {
  return same_word(name, "content-length") || same_word(name, "transfer-encoding") || same_word(name, "connection") ||
         same_word(name, "keep-alive") || same_word(name, "upgrade") || same_word(name, "trailer");
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ");
  for (const char c : value) out += is_control(c) ? ' ' : c;  // a line break would begin another header
  out.append("\r\n");
}

}  // namespace

void Answer::put(std::string bytes) {
  if (gone_ || bytes.empty()) return;
  unsent_ += bytes.size();
  queue_.push_back(std::move(bytes));
}

void Answer::put_head(int status, const Headers& headers, std::optional<std::size_t> length) {
  started_ = true;
  status_ = status >= 200 && status <= 599 ? status : 500;
  bodiless_ = setting_.head_only || status_ == 204 || status_ == 304;
  chunked_ = !length && !setting_.http_1_0 && status_ != 204 && status_ != 304;
  const auto wish = headers.find("Connection");
  keep_alive_ = setting_.keep_alive && !(setting_.closing && setting_.closing()) &&
                !(wish && same_word(*wish, "close")) && (length || chunked_ || bodiless_);

  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", status_, reason(status_));
  for (const auto& [name, value] : headers.all())
    if (!name.empty() && std::all_of(name.begin(), name.end(), is_token_char) && !is_framing(name))
      append_header(out, name, value);
  if (!request_.id.empty() && !headers.find("X-Request-Id")) append_header(out, "X-Request-Id", request_.id);
  if (chunked_) out += "Transfer-Encoding: chunked\r\n";
  if (length && status_ != 204 && status_ != 304) out += fmt::format("Content-Length: {}\r\n", *length);
  if (!keep_alive_)
    out += "Connection: close\r\n";
  else if (setting_.http_1_0)
    out += "Connection: keep-alive\r\n";
  put(out.append("\r\n"));
}

void Answer::wake_after(std::unique_lock<std::mutex>& lock) {
  const bool wake = std::exchange(awaited_, false);
  lock.unlock();
  if (wake && setting_.wake) setting_.wake();
}

void Answer::complain(std::string_view what) const {
  if (!setting_.complain) return;
  try {
    setting_.complain(what);
  } catch (...) {  // the one who was to hear of errors has one himself
    return;
  }
}

void Answer::respond(HttpResponse response) {
  std::unique_lock lock(mutex_);
  if (started_) {
    // An error that comes too late: the client must not take what it has for the whole.
    if (!finished_) keep_alive_ = false;
    finished_ = true;
    wake_after(lock);
    complain("a handler answered twice");
    return;
  }
  put_head(response.status, response.headers, response.body.size());
  finished_ = true;
  if (!bodiless_) {
    if (!queue_.empty() && response.body.size() <= kJoined) {
      queue_.back() += response.body;
      unsent_ += response.body.size();
    } else {
      put(std::move(response.body));
    }
  }
  wake_after(lock);
}

void Answer::start(int status, Headers headers) {
  std::unique_lock lock(mutex_);
  if (started_) {
    lock.unlock();
    complain("a handler began its answer twice");
    return;
  }
  put_head(status, headers, std::nullopt);
  wake_after(lock);
}

bool Answer::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kPiece);
    bytes.remove_prefix(piece.size());
    std::unique_lock lock(mutex_);
    // It ends: the connection's write timeout makes the client one that has gone.
    room_.wait(lock, [&] { return gone_ || unsent_ < kMaxUnsent; });
    if (gone_ || !started_ || finished_) return false;
    if (bodiless_) continue;
    put(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : std::string(piece));
    wake_after(lock);
  }
  return !gone();
}

void Answer::finish() {
  std::unique_lock lock(mutex_);
  if (!started_ || finished_) return;
  finished_ = true;
  if (chunked_ && !bodiless_) put("0\r\n\r\n");
  wake_after(lock);
}

bool Answer::gone() const {
  const std::lock_guard lock(mutex_);
  return gone_;
}

void Answer::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!gone_) {
      callbacks_.push_back(std::move(callback));
      return;
    }
  }
  callback();
}

void Answer::returned(std::optional<std::string> thrown) {
  if (thrown) complain(*thrown);
  std::unique_lock lock(mutex_);
  called_.wait(lock, [&] { return !calling_; });
  callbacks_.clear();
  std::string().swap(request_.body);
  const bool unanswered = !started_ && !gone_;
  const bool unfinished = started_ && !finished_ && !gone_;
  if (unfinished) {
    // No last chunk: the connection ends in the middle, so that the client notices.
    keep_alive_ = false;
    finished_ = true;
    wake_after(lock);
  } else {
    lock.unlock();
  }
  if (!thrown && unanswered) complain("a handler returned without an answer");
  if (!thrown && unfinished) complain("a handler returned in the middle of its answer");
  if (unanswered) respond(setting_.error ? setting_.error() : HttpResponse::text(500, "internal error\n"));
}

std::optional<std::string> Answer::next() {
  const std::lock_guard lock(mutex_);
  if (queue_.empty()) {
    awaited_ = true;
    return std::nullopt;
  }
  std::string bytes = std::move(queue_.front());
  queue_.pop_front();
  return bytes;
}

void Answer::sent(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_ -= bytes;
  if (unsent_ < kMaxUnsent) room_.notify_all();
}

void Answer::leave() {
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    if (gone_) return;
    gone_ = true;
    queue_.clear();
    room_.notify_all();
    callbacks.swap(callbacks_);
    calling_ = true;
  }
  for (const auto& callback : callbacks) {
    try {
      callback();
    } catch (const std::exception& error) {
      complain(error.what());
    } catch (...) {
      complain("a callback threw something unknown");
    }
  }
  const std::lock_guard lock(mutex_);
  calling_ = false;
  called_.notify_all();
}

Answer::Outcome Answer::outcome() const {
  const std::lock_guard lock(mutex_);
  return {finished_ && queue_.empty(), status_, keep_alive_ && finished_};
}

}  // namespace chiasm
