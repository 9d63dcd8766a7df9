#include "http/server_core.h"

#include <utility>

namespace chiasm {
namespace {

// Health checks and scrapes at once; whoever asks for more is no monitoring.
constexpr int kControlPermits = 8;

}  // namespace

ServerCore::ServerCore(ServerOptions given, std::vector<Route> routes)
    : options(std::move(given)), router(std::move(routes)), work(options.max_requests), control(kControlPermits) {}

HttpResponse ServerCore::error(int status, std::string_view message) const {
  HttpResponse response = HttpResponse::text(status, std::string(message) + "\n");
  if (options.error) {
    try {
      response = options.error(status, message);
      response.status = status;
    } catch (const std::exception& thrown) {
      failed(thrown.what());
    } catch (...) {
      failed("the maker of error bodies threw something unknown");
    }
  }
  if (status == 503 && !response.headers.find("Retry-After")) response.headers.add("Retry-After", "1");
  return response;
}

void ServerCore::failed(std::string_view what) const {
  if (!options.on_failure) return;
  try {
    options.on_failure(what);
  } catch (...) {  // there is nobody left to tell
    return;
  }
}

void ServerCore::done(const AccessRecord& record) const {
  if (!options.on_done) return;
  try {
    options.on_done(record);
  } catch (const std::exception& thrown) {
    failed(thrown.what());
  } catch (...) {
    failed("the access log threw something unknown");
  }
}

bool ServerCore::take_bytes(std::uint64_t count) {
  std::uint64_t held = buffered_;
  do {
    if (count > options.max_buffered || held > options.max_buffered - count) return false;
  } while (!buffered_.compare_exchange_weak(held, held + count));
  return true;
}

bool ServerCore::enter(Session* session, const std::weak_ptr<Session>& weak) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return false;
  sessions_.emplace(session, weak);
  return true;
}

void ServerCore::leave(Session* session) {
  const std::lock_guard lock(mutex_);
  sessions_.erase(session);
}

std::vector<std::shared_ptr<Session>> ServerCore::stop_sessions() {
  std::vector<std::shared_ptr<Session>> sessions;
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (const auto& [session, weak] : sessions_)
    if (auto held = weak.lock()) sessions.push_back(std::move(held));
  return sessions;
}

}  // namespace chiasm
