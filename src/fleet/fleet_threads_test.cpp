// The probing threads, and requests from many threads while servers come and go.
#include <condition_variable>
#include <thread>

#include <gtest/gtest.h>

#include "base/stopwatch.h"
#include "fleet/test_fleet.h"
#include "fleet/vision_fleet.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;

// Waits for `condition` for as long as a loaded machine may need.
bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

FleetOptions quick(const FakeNet& net) {
  FleetOptions options;
  options.servers = net.urls();
  options.vision_digest = sample_info().vision_digest;
  options.health.probe_interval = 5ms;
  options.health.max_probe_interval = 10ms;
  return options;
}

ServerCondition condition_of(const VisionFleet& fleet, std::size_t server) { return fleet.servers()[server].condition; }

// A client without a clock: the fake's time stands still while the fleet's runs.
class Timeless : public HttpClient {
 public:
  explicit Timeless(FakeNet& net) : inner_(net.client()) {}
  Result<HttpResponse> send(const ClientCall& call) override {
    ClientCall copy = call;
    copy.deadline = kNoDeadline;
    return inner_->send(copy);
  }

 private:
  std::unique_ptr<HttpClient> inner_;
};

TEST(FleetThreads, ProbesEjectAndBringBack) {
  FakeNet net({"a", "b"});
  auto fleet = must(VisionFleet::create(quick(net), std::make_unique<Timeless>(net)));
  must(fleet->start());
  must(fleet->start());  // once is enough
  EXPECT_TRUE(eventually([&] { return fleet->servers()[0].vision_digest && fleet->servers()[1].vision_digest; }));
  net.with("a", [](auto& server) { server.up = false; });
  EXPECT_TRUE(eventually([&] { return condition_of(*fleet, 0) == ServerCondition::kEjected; }));
  EXPECT_EQ(condition_of(*fleet, 1), ServerCondition::kHealthy);
  net.with("a", [](auto& server) { server.up = true; });
  EXPECT_TRUE(eventually([&] { return condition_of(*fleet, 0) == ServerCondition::kHealthy; }));
  net.with("b", [](auto& server) { server.info = sample_info("other"); });
  fleet->stop();
  const auto probes = fleet->servers()[0].probes;
  must(fleet->start());
  EXPECT_TRUE(eventually([&] { return fleet->servers()[0].probes > probes; })) << "it starts again";
}

// A server that takes a probe and never answers, until it is cancelled.
class Silent : public HttpClient {
 public:
  explicit Silent(std::atomic<int>& waiting) : waiting_(waiting) {}
  Result<HttpResponse> send(const ClientCall& call) override {
    ++waiting_;
    if (call.cancel == nullptr || !eventually([&] { return call.cancel->load(); }))
      return fail(Code::kDeadlineExceeded, "nobody cancelled");
    return fail(Code::kCancelled, "cancelled");
  }

 private:
  std::atomic<int>& waiting_;
};

TEST(FleetThreads, StopEndsRunningProbesAtOnce) {
  const FakeNet net({"a", "b", "c"});
  std::atomic<int> waiting = 0;
  FleetOptions options = quick(net);
  options.probe_timeout = 1h;
  auto fleet = must(VisionFleet::create(options, std::make_unique<Silent>(waiting)));
  must(fleet->start());
  ASSERT_TRUE(eventually([&] { return waiting == 3; }));
  const Stopwatch watch;
  fleet->stop();
  EXPECT_LT(watch.ms(), 30'000);
  for (const ServerState& server : fleet->servers()) EXPECT_EQ(server.failed_probes, 0U) << "stopping is no failure";
}

TEST(FleetThreads, StopEndsWaiting) {
  FakeNet net({"a"});
  FleetOptions options = quick(net);
  options.health.probe_interval = 1h;
  options.health.max_probe_interval = 1h;
  auto fleet = must(VisionFleet::create(options, std::make_unique<Timeless>(net)));
  must(fleet->start());
  ASSERT_TRUE(eventually([&] { return fleet->servers()[0].probes == 1; }));
  const Stopwatch watch;
  fleet.reset();
  EXPECT_LT(watch.ms(), 30'000);
}

TEST(FleetThreads, RequestsWhileServersComeAndGo) {
  FakeNet net({"a", "b", "c"});
  FleetOptions options = quick(net);
  std::atomic<int> lines = 0;
  options.log = [&](std::string_view) { ++lines; };
  auto fleet = must(VisionFleet::create(options, std::make_unique<Timeless>(net)));
  must(fleet->start());
  constexpr int kThreads = 4, kEach = 150;
  std::atomic<int> good = 0, bad = 0, running = kThreads;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const std::string picture = fmt::format("{}", (t * kEach + i) % 97);
        const auto file = bytes_of(picture);
        const FeatureKey key = key_of(sample_info(), picture);
        const auto deadline = std::chrono::steady_clock::now() + 60s;
        const auto got = fleet->encode(key, {&file, 1}, {}, {}, "", deadline, nullptr);
        if (got) {
          EXPECT_EQ(got->feature.meta.id, key.id);
          ++good;
        } else {
          EXPECT_EQ(got.error().code, Code::kUnavailable) << got.error().message;
          ++bad;
        }
        if (i % 10 == 0) (void)fleet->get(key.id, "", deadline, nullptr);
        if (i % 20 == 0) (void)fleet->remove(key.id, "", deadline, nullptr);
        (void)fleet->info(deadline, nullptr);
        (void)fleet->servers();
      }
      --running;
    });
  // One server at a time fails in one of three ways; the others answer.
  const auto busy = [](const ClientCall&) { return busy_answer(503, "0"); };
  const auto broken = [](const ClientCall&) { return feature_answer("no feature"); };
  for (int i = 0; running != 0; ++i) {
    const std::string name(1, static_cast<char>('a' + i % 3));
    net.with(name, [&](auto& server) {
      server.up = i % 4 != 0;
      if (i % 4 == 1) server.features = busy;
      if (i % 4 == 2) server.features = broken;
    });
    std::this_thread::sleep_for(2ms);
    net.with(name, [](auto& server) {
      server.up = true;
      server.features = nullptr;
    });
  }
  for (std::thread& thread : threads) thread.join();
  fleet->stop();
  EXPECT_EQ(good + bad, kThreads * kEach);
  EXPECT_GT(good, 0);
  std::uint64_t requests = 0, failures = 0;
  for (const ServerState& server : fleet->servers()) {
    requests += server.requests;
    failures += server.failures;
  }
  EXPECT_GE(requests, static_cast<std::uint64_t>(good.load()));
  EXPECT_LE(failures, requests + 3 * kThreads * kEach);
}

}  // namespace
}  // namespace chiasm
