#include "http/resolve.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include <arpa/inet.h>
#include <netdb.h>

#include "http/client.h"
#include "http/text.h"

namespace chiasm {
namespace {

constexpr int kMaxLookups = 64;
constexpr std::size_t kMaxAddresses = 16;
constexpr std::chrono::milliseconds kLongest{30'000};
constexpr std::chrono::milliseconds kGlance{25};

// The system's resolver cannot be interrupted, so that a lookup that was given up still holds its thread. This bounds
// how many there are in the process.
std::atomic<int> lookups = 0;

struct Lookup {
  std::mutex mutex;
  std::condition_variable done;
  std::optional<Result<std::vector<std::string>>> result;
};

Result<std::vector<std::string>> look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  // A small container may have no /etc/hosts; what this name means needs none (RFC 6761, section 6.3).
  if (error != 0 && same_word(host, "localhost")) return std::vector<std::string>{"127.0.0.1"};
  if (error != 0) return fail(Code::kUnavailable, "the name '{}' does not resolve: {}", host, ::gai_strerror(error));
  std::vector<std::string> addresses;
  for (const addrinfo* entry = list; entry != nullptr && addresses.size() < kMaxAddresses; entry = entry->ai_next) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* bytes = nullptr;
    if (entry->ai_family == AF_INET) bytes = &reinterpret_cast<const sockaddr_in*>(entry->ai_addr)->sin_addr;
    if (entry->ai_family == AF_INET6) bytes = &reinterpret_cast<const sockaddr_in6*>(entry->ai_addr)->sin6_addr;
    if (bytes == nullptr || ::inet_ntop(entry->ai_family, bytes, text.data(), text.size()) == nullptr) continue;
    if (std::find(addresses.begin(), addresses.end(), text.data()) == addresses.end())
      addresses.emplace_back(text.data());
  }
  ::freeaddrinfo(list);
  if (addresses.empty()) return fail(Code::kUnavailable, "the name '{}' has no address", host);
  return addresses;
}

}  // namespace

Result<std::vector<std::string>> resolve_until(const std::string& host, Deadline deadline, const CancelFlag* cancel) {
  std::array<std::uint8_t, 16> ignored{};
  if (::inet_pton(AF_INET, host.c_str(), ignored.data()) == 1 ||
      ::inet_pton(AF_INET6, host.c_str(), ignored.data()) == 1)
    return std::vector<std::string>{host};
  deadline = sooner(deadline, kLongest);

  auto lookup = std::make_shared<Lookup>();
  if (++lookups > kMaxLookups) {
    --lookups;
    return fail(Code::kUnavailable, "more than {} names are being looked up already", kMaxLookups);
  }
  try {
    std::thread([lookup, host] {
      auto result = look_up(host);
      --lookups;
      const std::lock_guard lock(lookup->mutex);
      lookup->result = std::move(result);
      lookup->done.notify_all();
    }).detach();
  } catch (const std::system_error& error) {
    --lookups;
    return fail(Code::kUnavailable, "no thread to look a name up with: {}", error.what());
  }
  std::unique_lock lock(lookup->mutex);
  while (!lookup->result) {
    if (cancel != nullptr && *cancel) return fail(Code::kCancelled, "cancelled while looking '{}' up", host);
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return fail(Code::kDeadlineExceeded, "the name '{}' was not resolved in time", host);
    lookup->done.wait_until(lock, std::min(deadline, now + kGlance));
  }
  return std::move(*lookup->result);
}

Result<std::vector<std::string>> resolve(const std::string& host) { return resolve_until(host, kNoDeadline, nullptr); }

}  // namespace chiasm
