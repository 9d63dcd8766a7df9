// What the tests of this folder share: what a vision server says and answers, and servers that exist in memory only.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/test_support.h"
#include "features/feature_file.h"
#include "features/test_features.h"
#include "fleet/rendezvous.h"
#include "fleet/vision_fleet.h"
#include "fleet/vision_info.h"
#include "http/client.h"

namespace chiasm {

inline VisionInfo sample_info(std::string_view vision = "vision") {
  VisionInfo info;
  info.model = "sample";
  info.version = "0.1.0";
  info.vision_digest = digest_of(bytes_of(vision));
  info.preprocess_digest = info.preprocessor.digest();
  info.hidden_size = 8;
  info.limits = {.max_body = 1 << 20, .max_megapixels = 64, .max_picture_tokens = 16384};
  return info;
}

// The key that the language side makes of this info and one picture.
inline FeatureKey key_of(const VisionInfo& info, std::string_view picture, std::string_view tenant = "",
                         std::optional<std::int64_t> min_pixels = {}, std::optional<std::int64_t> max_pixels = {}) {
  const auto file = bytes_of(picture);
  return feature_key(tenant, info.vision_digest, info.preprocess_digest_with(min_pixels, max_pixels), {&file, 1});
}

inline Feature feature_of(const FeatureKey& key, std::int64_t width = 8) {
  Matrix rows(6, width);
  for (std::int64_t i = 0; i < rows.size(); ++i)
    rows.data()[i] = static_cast<float>(key.image_digest.bytes[static_cast<std::size_t>(i % 32)]) / 16;
  return make_feature(key, {1, 4, 6}, "sample", std::move(rows));
}

inline std::string file_of(const Feature& feature, DType dtype = DType::kF32) {
  const auto bytes = must(serialize_feature(feature, dtype));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline HttpResponse feature_answer(std::string body, std::string source = "encoded") {
  return {
      200, {{"Content-Type", "application/octet-stream"}, {"X-Feature-Source", std::move(source)}}, std::move(body)};
}

inline HttpResponse error_answer(int status, std::string_view message = "no") {
  return HttpResponse::json(status, fmt::format(R"({{"error":{{"message":"{}","type":"x"}}}})", message));
}

inline HttpResponse busy_answer(int status, const std::string& retry_after) {
  HttpResponse answer = error_answer(status, "busy");
  answer.headers.add("Retry-After", retry_after);
  return answer;
}

struct SeenCall {
  std::string server, method, target, body;
  Headers headers;
  Deadline deadline;
};

// Vision servers at "http://NAME:9001", reached through client(), and the time they live in.
class FakeNet {
 public:
  using Answer = std::function<Result<HttpResponse>(const ClientCall&)>;
  struct Server {
    bool up = true;
    int ready = 200;
    VisionInfo info = sample_info();
    Answer features;                          // instead of what a sound server answers under /v1/features
    Answer about;                             // instead of /v1/info
    std::map<std::string, std::string> kept;  // files by id
  };

  explicit FakeNet(const std::vector<std::string>& names) {
    for (const std::string& name : names) servers_[name];
  }

  // Any thread, while the lock is held by nobody else; tests with threads change servers through with().
  Server& operator[](const std::string& name) { return servers_.at(name); }
  void with(const std::string& name, const std::function<void(Server&)>& change) {
    const std::lock_guard lock(mutex_);
    change(servers_.at(name));
  }

  std::vector<Url> urls() const {
    std::vector<Url> out;
    for (const auto& [name, server] : servers_) out.push_back({.scheme = "http", .host = name, .port = 9001});
    return out;
  }

  std::unique_ptr<HttpClient> client() { return std::make_unique<Client>(*this); }

  // Calls whose target starts so, in order.
  std::vector<SeenCall> calls(std::string_view target = "/v1/features") const {
    const std::lock_guard lock(mutex_);
    std::vector<SeenCall> out;
    for (const SeenCall& call : calls_)
      if (std::string_view(call.target).starts_with(target)) out.push_back(call);
    return out;
  }
  void forget() {
    const std::lock_guard lock(mutex_);
    calls_.clear();
  }

  Deadline now() const { return Deadline(Deadline::duration(now_.load())); }
  void pass(std::chrono::milliseconds time) { now_ += std::chrono::duration_cast<Deadline::duration>(time).count(); }

 private:
  class Client : public HttpClient {
   public:
    explicit Client(FakeNet& net) : net_(net) {}
    Result<HttpResponse> send(const ClientCall& call) override { return net_.send(call); }

   private:
    FakeNet& net_;
  };

  Result<HttpResponse> send(const ClientCall& call) {
    Answer special;
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(
          {call.url.host, call.method, call.url.target, std::string(call.body), call.headers, call.deadline});
      Server& server = servers_.at(call.url.host);
      if (call.cancel != nullptr && *call.cancel) return fail(Code::kCancelled, "cancelled");
      if (now() >= call.deadline) return fail(Code::kDeadlineExceeded, "late");
      if (!server.up) return fail(Code::kUnavailable, "connect to {}: refused", call.url.host);
      if (call.url.target == "/health/ready") return HttpResponse::text(server.ready, "");
      if (call.url.target == "/v1/info") {
        if (!server.about) return HttpResponse::json(200, vision_info_json(server.info));
        special = server.about;
      } else {
        if (!server.features) return features(server, call);
        special = server.features;
      }
    }
    return special(call);
  }

  static Result<HttpResponse> features(Server& server, const ClientCall& call) {
    const std::string prefix = "/v1/features/";
    if (call.method == "POST") {
      const auto number = [&](const std::string& name) -> std::optional<std::int64_t> {
        const auto at = call.url.target.find(name + "=");
        if (at == std::string::npos) return std::nullopt;
        return std::stoll(call.url.target.substr(at + name.size() + 1));
      };
      const auto tenant = call.headers.find("X-Chiasm-Tenant").value_or("");
      const FeatureKey key = key_of(server.info, call.body, tenant, number("min_pixels"), number("max_pixels"));
      const bool known = server.kept.contains(key.id.hex());
      if (!known) server.kept[key.id.hex()] = file_of(feature_of(key, server.info.hidden_size));
      return feature_answer(server.kept[key.id.hex()], known ? "memory" : "encoded");
    }
    const auto kept = server.kept.find(call.url.target.substr(prefix.size()));
    if (kept == server.kept.end()) return error_answer(404);
    if (call.method == "GET") return feature_answer(kept->second, "disk");
    server.kept.erase(kept);
    return HttpResponse::json(200, R"({"deleted":true})");
  }

  mutable std::mutex mutex_;
  std::map<std::string, Server> servers_;
  std::vector<SeenCall> calls_;
  std::atomic<Deadline::duration::rep> now_ = Deadline::duration(std::chrono::hours(1)).count();
};

// One fleet against three of them.
class Fleet : public testing::Test {
 public:
  FleetOptions options() {
    FleetOptions out;
    out.servers = net.urls();
    out.vision_digest = sample_info().vision_digest;
    out.clock = [this] { return net.now(); };
    out.seed = 1;
    out.log = [this](std::string_view line) { lines.emplace_back(line); };
    return out;
  }
  void open(FleetOptions given) { fleet = must(VisionFleet::create(std::move(given), net.client())); }
  void open() { open(options()); }

  Result<RemoteFeature> encode(std::string_view picture = "picture", std::string_view tenant = "") const {
    const auto file = bytes_of(picture);
    return fleet->encode(key_of(sample_info(), picture, tenant), {&file, 1}, {}, {}, tenant,
                         net.now() + std::chrono::seconds(60), nullptr);
  }
  Result<RemoteFeature> get(const FeatureId& id) const {
    return fleet->get(id, "", net.now() + std::chrono::seconds(60), nullptr);
  }

  // Names in the order in which they are asked about the picture.
  std::vector<std::string> order(std::string_view picture = "picture") const {
    std::vector<std::string> origins, out;
    for (const Url& url : net.urls()) origins.push_back(url.origin());
    for (const std::size_t i : rendezvous_order(key_of(sample_info(), picture).id, origins))
      out.push_back(net.urls()[i].host);
    return out;
  }
  std::vector<std::string> asked(std::string_view target = "/v1/features") const {
    std::vector<std::string> out;
    for (const SeenCall& call : net.calls(target)) out.push_back(call.server);
    return out;
  }
  ServerState state(const std::string& name) const {
    for (const ServerState& server : fleet->servers())
      if (server.origin == "http://" + name + ":9001") return server;
    ADD_FAILURE() << "no server " << name;
    return {};
  }
  bool logged(std::string_view text) const {
    return std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.find(text) != line.npos; });
  }
  void each(const std::function<void(FakeNet::Server&)>& change) {
    for (const Url& url : net.urls()) change(net[url.host]);
  }

  FakeNet net{{"a", "b", "c"}};
  std::unique_ptr<VisionFleet> fleet;
  std::vector<std::string> lines;
};

template <class T>
void expect_error(const Result<T>& result, Code code, std::string_view text) {
  ASSERT_FALSE(result) << "expected " << code_name(code);
  EXPECT_EQ(code_name(result.error().code), code_name(code)) << result.error().message;
  EXPECT_NE(result.error().message.find(text), std::string::npos) << result.error().message;
  // May reach a client.
  for (const auto* secret : {"http://", "9001", "refused by", "connect"})
    EXPECT_EQ(result.error().message.find(secret), std::string::npos) << result.error().message;
}

}  // namespace chiasm
