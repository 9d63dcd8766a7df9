// One exchange between the handler's thread, which makes the answer, and the connection, which sends it.
//
// Thread contract: the methods of Exchange and returned() belong to the handler's thread (or to the connection's, for
// answers of the server's own), the others to the connection.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/server.h"

namespace chiasm {

class Answer final : public Exchange {
 public:
  struct Setting {
    bool http_1_0 = false;
    bool keep_alive = true;
    bool head_only = false;               // the answer to HEAD has no body
    std::function<bool()> closing;        // asked when the head is written: whether the connection ends after this
    std::function<void()> wake;           // there is something to send
    std::function<HttpResponse()> error;  // the 500 of a handler that failed
    std::function<void(std::string_view)> complain;
  };
  Answer(HttpRequest request, Setting setting) : request_(std::move(request)), setting_(std::move(setting)) {}

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::move(request_.body); }
  void respond(HttpResponse response) override;
  void start(int status, Headers headers) override;
  bool write(std::string_view bytes) override;
  void finish() override;
  bool gone() const override;
  void on_gone(std::function<void()> callback) override;

  // The handler came back, or threw `thrown`: answers in its place where it did not, and lets go of body and callbacks.
  void returned(std::optional<std::string> thrown);

  // What to send next; nothing when there is nothing now, and then `wake` is called when there is.
  std::optional<std::string> next();
  void sent(std::size_t bytes);
  void leave();  // the client has gone: calls back

  struct Outcome {
    bool finished = false;  // all has been given to next()
    int status = 0;         // 0: nothing was answered
    bool keep_alive = false;
  };
  Outcome outcome() const;

 private:
  void put_head(int status, const Headers& headers, std::optional<std::size_t> length);
  void put(std::string bytes);
  void wake_after(std::unique_lock<std::mutex>& lock);
  void complain(std::string_view what) const;

  HttpRequest request_;
  const Setting setting_;
  mutable std::mutex mutex_;
  std::condition_variable room_, called_;
  std::deque<std::string> queue_;
  std::size_t unsent_ = 0;
  bool awaited_ = true;  // next() found nothing
  bool started_ = false, finished_ = false, gone_ = false, calling_ = false;
  bool chunked_ = false, bodiless_ = false, keep_alive_ = false;
  int status_ = 0;
  std::vector<std::function<void()>> callbacks_;
};

}  // namespace chiasm
