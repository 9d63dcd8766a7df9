#include "http/client.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <utility>

#include "http/client_tls.h"
#include "http/resolve.h"
#include "http/response_reader.h"
#include "http/text.h"
#include "http/wire.h"

namespace chiasm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kReadSize = 128 << 10;
constexpr std::size_t kMaxKept = 256;         // of all origins together
constexpr milliseconds kKeptFor{60'000};      // less than servers usually wait
constexpr milliseconds kConnectTime{10'000};  // for one address, TLS included

bool is_header_value(std::string_view text) { return std::none_of(text.begin(), text.end(), is_control); }

bool is_token(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char); }

bool is_visible(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

bool is_ours(std::string_view name) {
  return same_word(name, "host") || same_word(name, "content-length") || same_word(name, "transfer-encoding") ||
         same_word(name, "connection") || same_word(name, "expect");
}

Result<std::string> request_head(const ClientCall& call) {
  if (!is_token(call.method)) return fail(Code::kInvalidArgument, "'{}' is no method", call.method);
  if (!is_visible(call.url.target) || call.url.target.front() != '/' || !is_visible(call.url.host))
    return fail(Code::kInvalidArgument, "the URL's host or path is not one that can be sent");
  const bool v6 = call.url.host.find(':') != std::string::npos;
  std::string head = fmt::format("{} {} HTTP/1.1\r\nHost: {}{}{}", call.method, call.url.target, v6 ? "[" : "",
                                 call.url.host, v6 ? "]" : "");
  if (call.url.port != (call.url.scheme == "https" ? 443 : 80)) head += fmt::format(":{}", call.url.port);
  head += "\r\n";
  for (const auto& [name, value] : call.headers.all()) {
    if (!is_token(name) || !is_header_value(value))
      return fail(Code::kInvalidArgument, "the header '{}' holds characters that cannot be sent",
                  is_token(name) ? name : std::string("?"));
    if (!is_ours(name)) head.append(name).append(": ").append(value).append("\r\n");
  }
  if (!call.headers.find("User-Agent")) head += "User-Agent: chiasm\r\n";
  if (!call.body.empty() || call.method == "POST" || call.method == "PUT" || call.method == "PATCH")
    head += fmt::format("Content-Length: {}\r\n", call.body.size());
  return head.append("\r\n");
}

// One request over one connection.
class Conversation {
 public:
  Conversation(Wire& wire, const ClientCall& call)
      : wire_(wire),
        call_(call),
        patience_{call.deadline, call.cancel, call.abandon},
        reader_(call.method == "HEAD", call.max_body) {}

  Status run(std::string_view head) {
    RETURN_IF_ERROR(write(head));
    if (sending_) RETURN_IF_ERROR(write(call_.body));
    while (!reader_.done()) {
      RETURN_IF_ERROR(patience_.check("reading the answer"));
      RETURN_IF_ERROR(read(true));
    }
    return {};
  }

  // Nothing came back: on a connection that had been idle, the server had left it, and another may serve.
  bool lost_at_once() const { return lost_ && !reader_.began(); }
  bool reusable() const { return sending_ && reader_.keep_alive(); }
  HttpResponse take() { return reader_.take(); }

 private:
  // A server may answer and close before it has read everything: then its answer is what counts.
  Status write(std::string_view bytes) {
    while (!bytes.empty() && sending_) {
      const Wire::Step step = wire_.write_some(bytes);
      switch (step.outcome) {
        case Wire::Outcome::kMoved:
          bytes.remove_prefix(step.bytes);
          RETURN_IF_ERROR(patience_.check("sending the request"));
          break;
        case Wire::Outcome::kWantRead:
        case Wire::Outcome::kWantWrite:
          RETURN_IF_ERROR(wire_.wait(step.outcome, true, patience_));
          RETURN_IF_ERROR(read(false));
          if (reader_.head_done()) sending_ = false;
          break;
        case Wire::Outcome::kEnd:
        case Wire::Outcome::kBroken: sending_ = false; break;
      }
    }
    return {};
  }

  Status read(bool waits) {
    buffer_.resize(kReadSize);
    const Wire::Step step = wire_.read_some(buffer_.data(), buffer_.size());
    switch (step.outcome) {
      case Wire::Outcome::kMoved: return reader_.feed(std::string_view(buffer_).substr(0, step.bytes));
      case Wire::Outcome::kWantRead:
      case Wire::Outcome::kWantWrite: return waits ? wire_.wait(step.outcome, false, patience_) : Status();
      case Wire::Outcome::kEnd:
        lost_ = true;
        if (!reader_.began()) return fail(Code::kUnavailable, "the server closed the connection without an answer");
        return reader_.end();
      case Wire::Outcome::kBroken: lost_ = true; break;
    }
    return fail(Code::kUnavailable, "the connection broke: {}", wire_.trouble());
  }

  Wire& wire_;
  const ClientCall& call_;
  const Patience patience_;
  ResponseReader reader_;
  std::string buffer_;
  bool sending_ = true;
  bool lost_ = false;
};

class BlockingClient final : public HttpClient {
 public:
  BlockingClient(std::unique_ptr<ClientTls> tls, std::size_t kept) : tls_(std::move(tls)), per_origin_(kept) {}

  Result<HttpResponse> send(const ClientCall& call) override {
    ASSIGN_OR_RETURN(const std::string head, request_head(call));
    const std::string key = call.url.origin() + " " + call.address.value_or("");
    auto response = send_by(take(key), call, head, key);
    if (!response) return fail_in(call.url.origin(), response.error());
    return response;
  }

 private:
  struct Kept {
    std::string key;
    std::unique_ptr<Wire> wire;
    Deadline until;
  };

  Result<HttpResponse> send_by(std::unique_ptr<Wire> wire, const ClientCall& call, const std::string& head,
                               const std::string& key) {
    RETURN_IF_ERROR(Patience({call.deadline, call.cancel, call.abandon}).check("beginning"));
    for (bool kept = wire != nullptr;; kept = false) {
      if (!kept) {
        ASSIGN_OR_RETURN(wire, dial(call));
      }
      Conversation conversation(*wire, call);
      const Status status = conversation.run(head);
      if (!status && kept && conversation.lost_at_once()) continue;
      RETURN_IF_ERROR(status);
      if (conversation.reusable()) keep(key, std::move(wire));
      return conversation.take();
    }
  }

  Result<std::unique_ptr<Wire>> dial(const ClientCall& call) {
    std::vector<std::string> addresses;
    if (call.address) {
      addresses.push_back(*call.address);
    } else {
      ASSIGN_OR_RETURN(addresses, resolve_until(call.url.host, call.deadline, call.cancel));
    }
    const ClientTls* tls = call.url.scheme == "https" ? tls_.get() : nullptr;
    Error last;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      // One address that swallows everything must leave time for the next.
      milliseconds time = kConnectTime;
      if (call.deadline != kNoDeadline && i + 1 < addresses.size())
        time = std::min(time,
                        std::chrono::duration_cast<milliseconds>(call.deadline - std::chrono::steady_clock::now()) / 2);
      const Patience patience{sooner(call.deadline, time), call.cancel, call.abandon};
      auto wire = Wire::connect(addresses[i], call.url.port, tls, call.url.host, patience);
      if (wire) return wire;
      last = wire.error();
      if (last.code == Code::kCancelled || last.code == Code::kInvalidArgument) break;
      if (last.code == Code::kDeadlineExceeded) {
        if (std::chrono::steady_clock::now() >= call.deadline) break;
        last = {Code::kUnavailable, "the server did not take the connection in time"};
      }
    }
    return tl::unexpected<Error>(last);
  }

  std::unique_ptr<Wire> take(const std::string& key) {
    const auto now = std::chrono::steady_clock::now();
    std::list<Kept> dropped;  // closed outside the lock
    const std::lock_guard lock(mutex_);
    for (auto at = kept_.begin(); at != kept_.end();) {
      const auto here = at++;
      if (here->until < now) {
        dropped.splice(dropped.end(), kept_, here);
      } else if (here->key == key) {
        std::unique_ptr<Wire> wire = std::move(here->wire);
        kept_.erase(here);
        if (!wire->stale()) return wire;
      }
    }
    return nullptr;
  }

  void keep(const std::string& key, std::unique_ptr<Wire> wire) {
    if (per_origin_ == 0) return;
    std::list<Kept> dropped;
    const std::lock_guard lock(mutex_);
    // The latest first: it is the one that the server has given up last.
    kept_.push_front({key, std::move(wire), std::chrono::steady_clock::now() + kKeptFor});
    std::size_t same = 0;
    for (auto at = kept_.begin(); at != kept_.end();) {
      const auto here = at++;
      if (here->key == key && ++same > per_origin_) dropped.splice(dropped.end(), kept_, here);
    }
    if (kept_.size() > kMaxKept) dropped.splice(dropped.end(), kept_, std::prev(kept_.end()));
  }

  const std::unique_ptr<ClientTls> tls_;
  const std::size_t per_origin_;
  std::mutex mutex_;
  std::list<Kept> kept_;
};

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::create(const ClientOptions& options) {
  ASSIGN_OR_RETURN(auto tls, ClientTls::create(options));
  return std::make_unique<BlockingClient>(std::move(tls), options.kept_connections);
}

}  // namespace chiasm
