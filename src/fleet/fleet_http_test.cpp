// The fleet against real servers on real sockets: what travels is what the other side reads.
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "fleet/test_fleet.h"
#include "fleet/vision_fleet.h"
#include "http/multipart.h"
#include "http/server.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kSecret = "between-us";

std::string pixels(std::string_view text) { return "pixels of " + std::string(text); }

// A vision server as far as the wire goes: it keys and keeps as the real one does and makes up the features.
class WireServer {
 public:
  explicit WireServer(std::uint16_t port = 0) { start(port); }

  void start(std::uint16_t port) {
    ServerOptions options;
    options.port = port;
    options.error = [](int status, std::string_view message) { return error_answer(status, message); };
    options.gate = [](const HttpRequest& head, const Route& route) -> std::optional<HttpResponse> {
      if (route.open || head.headers.find("authorization") == "Bearer " + std::string(kSecret)) return std::nullopt;
      return error_answer(401, "no key");
    };
    const auto control = Route::Lane::kControl;
    const std::vector<Route> routes = {
        {.method = "GET",
         .pattern = "/health/ready",
         .handler = [](Exchange& e) { e.respond(HttpResponse::text(200, "")); },
         .lane = control,
         .open = true},
        {.method = "GET",
         .pattern = "/v1/info",
         .handler = [this](Exchange& e) { e.respond(HttpResponse::json(200, vision_info_json(info_))); },
         .lane = control},
        {.method = "POST",
         .pattern = "/v1/features",
         .handler = [this](Exchange& e) { e.respond(encode(e)); },
         .max_body = info_.limits.max_body},
        {.method = "GET",
         .pattern = "/v1/features/{id}",
         .handler = [this](Exchange& e) { e.respond(find(e.request())); }},
        {.method = "DELETE", .pattern = "/v1/features/{id}", .handler = [this](Exchange& e) {
           e.respond(remove(e.request()));
         }}};
    // A port that is taken again may for a moment be some connection's.
    auto started = HttpServer::start(options, routes);
    for (const Deadline end = std::chrono::steady_clock::now() + 60s;
         !started && port != 0 && std::chrono::steady_clock::now() < end; started = HttpServer::start(options, routes))
      std::this_thread::sleep_for(10ms);
    server_ = must(std::move(started));
  }
  std::uint16_t port() const { return server_->port(); }
  void stop() { server_.reset(); }
  std::size_t kept() const {
    const std::lock_guard lock(mutex_);
    return files_.size();
  }
  std::atomic<int> encoded = 0;

 private:
  HttpResponse encode(Exchange& exchange) {
    const HttpRequest& request = exchange.request();
    const auto type = request.headers.find("content-type").value_or("");
    std::vector<std::span<const std::byte>> files;
    if (type.starts_with("multipart/")) {
      const auto parts = parse_multipart(type, request.body);
      if (!parts) return error_answer(400, parts.error().message);
      for (const FormPart& part : *parts) {
        if (part.name != "frame") return error_answer(400, "expected parts 'frame'");
        files.push_back(bytes_of(part.bytes));
      }
    } else {
      files.push_back(bytes_of(request.body));
    }
    for (const auto& file : files)
      if (!std::string_view(reinterpret_cast<const char*>(file.data()), file.size()).starts_with("pixels"))
        return error_answer(400, "not a picture");
    const auto number = [&](std::string_view name) -> std::optional<std::int64_t> {
      const auto text = request.query_value(name);
      return text ? std::optional(std::stoll(std::string(*text))) : std::nullopt;
    };
    const FeatureKey key = feature_key(request.headers.find("X-Chiasm-Tenant").value_or(""), info_.vision_digest,
                                       info_.preprocess_digest_with(number("min_pixels"), number("max_pixels")), files);
    const std::lock_guard lock(mutex_);
    std::string& file = files_[key.id.hex()];
    if (!file.empty()) return feature_answer(file, "memory");
    ++encoded;
    return feature_answer(file = file_of(feature_of(key)), "encoded");
  }
  HttpResponse find(const HttpRequest& request) const {
    const std::lock_guard lock(mutex_);
    const auto file = files_.find(std::string(request.capture("id")));
    return file == files_.end() ? error_answer(404) : feature_answer(file->second, "memory");
  }
  HttpResponse remove(const HttpRequest& request) {
    const std::lock_guard lock(mutex_);
    return files_.erase(std::string(request.capture("id"))) == 0 ? error_answer(404) : HttpResponse::json(200, "{}");
  }

  const VisionInfo info_ = sample_info();
  mutable std::mutex mutex_;
  std::map<std::string, std::string> files_;
  std::unique_ptr<HttpServer> server_;  // last: its handlers use the rest
};

class FleetHttp : public testing::Test {
 public:
  FleetHttp() {
    FleetOptions options;
    for (const WireServer& server : servers) options.servers.push_back({"http", "127.0.0.1", server.port()});
    options.secret = kSecret;
    options.vision_digest = sample_info().vision_digest;
    options.health.probe_interval = 20ms;
    options.health.max_probe_interval = 50ms;
    options.probe_timeout = 30s;
    fleet = must(VisionFleet::create(options, must(HttpClient::create())));
  }
  static Deadline soon() { return std::chrono::steady_clock::now() + 60s; }
  Result<RemoteFeature> encode(const std::string& picture, std::string_view tenant = "") const {
    const auto file = bytes_of(picture);
    return fleet->encode(key_of(sample_info(), picture, tenant), {&file, 1}, {}, {}, tenant, soon(), nullptr);
  }
  bool eventually(std::size_t server, ServerCondition condition) const {
    for (const Deadline end = soon(); fleet->servers()[server].condition != condition; std::this_thread::sleep_for(1ms))
      if (std::chrono::steady_clock::now() > end) return false;
    return true;
  }

  WireServer servers[3];
  std::unique_ptr<VisionFleet> fleet;
};

TEST_F(FleetHttp, AskedOnceKeptAndRemoved) {
  const VisionInfo info = must(fleet->info(soon(), nullptr));
  EXPECT_EQ(vision_info_json(info), vision_info_json(sample_info()));
  const RemoteFeature fresh = must(encode(pixels("one"), "acme"));
  const FeatureKey key = key_of(info, pixels("one"), "acme");
  EXPECT_EQ(fresh.source, "encoded");
  EXPECT_EQ(values_of(fresh.feature), values_of(feature_of(key)));
  EXPECT_EQ(must(encode(pixels("one"), "acme")).source, "memory");
  EXPECT_EQ(must(fleet->get(key.id, "acme", soon(), nullptr)).server, fresh.server);
  EXPECT_TRUE(fleet->remove(key.id, "acme", soon(), nullptr));
  const auto gone = fleet->get(key.id, "acme", soon(), nullptr);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Code::kNotFound) << gone.error().message;
}

TEST_F(FleetHttp, FramesAndBounds) {
  const VisionInfo info = sample_info();
  const std::string one = pixels("one") + std::string("\0\r\n--\r\n", 7), two = pixels("two");
  const std::vector<std::span<const std::byte>> frames = {bytes_of(one), bytes_of(two)};
  const FeatureKey key = feature_key("", info.vision_digest, info.preprocess_digest_with(6272, 12544), frames);
  const RemoteFeature got = must(fleet->encode(key, frames, 6272, 12544, "", soon(), nullptr));
  EXPECT_EQ(got.feature.meta.id, key.id);
}

TEST_F(FleetHttp, ARefusalIsPassedOn) {
  const auto got = encode("no picture");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Code::kInvalidArgument);
  EXPECT_EQ(got.error().message, "not a picture");
}

TEST_F(FleetHttp, AWrongSecretIsNobodysPicture) {
  FleetOptions options;
  options.servers = {{"http", "127.0.0.1", servers[0].port()}};
  options.secret = "wrong";
  auto stranger = must(VisionFleet::create(options, must(HttpClient::create())));
  const auto info = stranger->info(soon(), nullptr);
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code, Code::kUnavailable);
  EXPECT_EQ(stranger->servers()[0].last_error, "/v1/info: HTTP 401: no key");
}

TEST_F(FleetHttp, AServerDiesAndComesBack) {
  must(fleet->start());
  const std::uint16_t port = servers[0].port();
  servers[0].stop();
  for (int i = 0; i < 30; ++i) must(encode(pixels(std::to_string(i))));
  EXPECT_EQ(servers[1].encoded + servers[2].encoded, 30);
  ASSERT_TRUE(eventually(0, ServerCondition::kEjected));
  servers[0].start(port);
  ASSERT_TRUE(eventually(0, ServerCondition::kHealthy));
  for (int i = 30; i < 60; ++i) must(encode(pixels(std::to_string(i))));
  EXPECT_GT(servers[0].encoded, 0) << "it has its share again";
  for (WireServer& server : servers) server.stop();
  const auto nobody = encode(pixels("late"));
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code, Code::kUnavailable);
  EXPECT_EQ(nobody.error().message.find("127.0.0.1"), std::string::npos);
  EXPECT_TRUE(fleet->info(soon(), nullptr)) << "keys can still be made";
}

TEST_F(FleetHttp, ManyAtOnce) {
  must(fleet->start());
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) EXPECT_TRUE(encode(pixels(std::to_string((t * 7 + i) % 40))));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(servers[0].encoded + servers[1].encoded + servers[2].encoded, 40) << "each picture by one server, once";
  EXPECT_EQ(servers[0].kept() + servers[1].kept() + servers[2].kept(), 40U);
}

}  // namespace
}  // namespace chiasm
