// What all connections of one server share: options, routes, permits, the budget for bodies.
//
// Thread contract: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "http/lane.h"
#include "http/router.h"
#include "http/server.h"

namespace chiasm {

class Session;

class ServerCore {
 public:
  ServerCore(ServerOptions given, std::vector<Route> routes);

  HttpResponse error(int status, std::string_view message) const;
  void failed(std::string_view what) const;
  void done(const AccessRecord& record) const;

  // False when no more may be held.
  bool take_bytes(std::uint64_t count);
  void give_bytes(std::uint64_t count) { buffered_ -= count; }

  Lane& lane(Route::Lane which) { return which == Route::Lane::kWork ? work : control; }

  // False when the server has stopped: the session must not begin.
  bool enter(Session* session, const std::weak_ptr<Session>& weak);
  void leave(Session* session);
  std::vector<std::shared_ptr<Session>> stop_sessions();  // all that there are; none enters any more

  const ServerOptions options;
  const Router router;
  Lane work, control;
  std::atomic<bool> draining = false;
  std::atomic<int> connections = 0;  // that are served
  std::atomic<int> refusals = 0;     // connections that are being told that there are too many

 private:
  std::atomic<std::uint64_t> buffered_ = 0;
  std::mutex mutex_;
  bool stopped_ = false;
  std::unordered_map<Session*, std::weak_ptr<Session>> sessions_;
};

}  // namespace chiasm
