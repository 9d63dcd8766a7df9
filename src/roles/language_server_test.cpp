// The language server's routes against a sight that the test controls: what is described, what a slow or failing eye
// does to an answer, and what a client cannot do with features of its own.
#include "roles/language_server.h"

#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/openapi.h"
#include "base/base64.h"
#include "base/test_support.h"
#include "features/feature_file.h"
#include "roles/front.h"
#include "roles/test_exchange.h"

namespace chiasm {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Sees the same small feature in everything, after as long as it is told to, or fails as it is told to.
class TestEye : public Eye {
 public:
  explicit TestEye(const LanguageSide& side) : vision_digest_(must(side.vision_digest())) {
    width_ = side.config().text.hidden_size;
  }

  Result<Sight> look(const LookRequest& request) override {
    ++looks;
    std::this_thread::sleep_for(slowness);
    if (error) return tl::unexpected(*error);
    const FeatureKey key = feature_key(request.tenant, vision_digest_, preprocessor_.digest(), request.files);
    Matrix rows(4, width_);
    std::fill_n(rows.data(), rows.size(), 0.25F);
    auto feature = std::make_shared<const Feature>(make_feature(key, {1, 4, 4}, "test", std::move(rows)));
    return Sight{std::move(feature), "encoded", 1.0};
  }
  Result<Sight> find(const FeatureId& id, std::string_view, Deadline, const CancelFlag*) override {
    return fail(Code::kNotFound, "nothing is kept under the id {}", id.hex());
  }
  Status forget(const FeatureId& id, std::string_view, Deadline) override {
    return fail(Code::kNotFound, "nothing is kept under the id {}", id.hex());
  }
  const PreprocessorConfig& preprocessor() const override { return preprocessor_; }
  EyeStatus status() const override { return {}; }
  void read_metrics(MetricReader&) const override {}

  std::atomic<int> looks = 0;
  std::chrono::milliseconds slowness{0};
  std::optional<Error> error;

 private:
  const PreprocessorConfig preprocessor_;
  Digest vision_digest_;
  std::int64_t width_ = 0;
};

class LanguageServerTest : public testing::Test {
 protected:
  LanguageServerTest() : side_(must(LanguageSide::open({.model = toytown_dir()}, threads_))), eye_(*side_) {
    must(side_->load());
    PictureDeskOptions desk;
    desk.vision_digest = must(side_->vision_digest());
    desk_.emplace(eye_, *client_, side_->config(), desk);
    LanguageServerOptions options;
    options.model_names = {"toytown"};
    options.ping_every = std::chrono::milliseconds(20);
    options.version = "test";
    options.web = false;
    server_.emplace(*side_, eye_, *desk_, metrics_, log_, options);
    routes_ = server_->routes();
  }

  HttpResponse post(const std::string& path, std::string body) {
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.body = std::move(body);
    TestExchange exchange(std::move(request));
    return answer_of(routes_, exchange, path);
  }

  static std::string chat(const std::string& part, const std::string& more = "") {
    return R"({"model":"toytown","max_tokens":3,"messages":[{"role":"user","content":[)" + part +
           R"({"type":"text","text":"Day or night?"}]}])" + more + "}";
  }
  inline static const std::string kPicture =
      R"({"type":"image_url","image_url":{"url":"data:image/png;base64,aGFsbG8="}},)";

  ThreadPool threads_{2};
  Metrics metrics_;
  Log log_{LogLevel::kOff};
  std::unique_ptr<LanguageSide> side_;
  TestEye eye_;
  std::unique_ptr<HttpClient> client_ = must(HttpClient::create());
  std::optional<PictureDesk> desk_;
  std::optional<LanguageServer> server_;
  std::vector<Route> routes_;
};

TEST_F(LanguageServerTest, TheDocumentDescribesTheRoutesThereAre) {
  std::set<std::pair<std::string, std::string>> registered;
  for (const Route& route : routes_) registered.emplace(route.method, route.pattern);
  // What every server has around its routes is asked for, since Front adds it by itself.
  FrontOptions front_options;
  const auto front = must(Front::start(std::move(front_options), routes_, metrics_, log_));
  front->set_ready(true);
  const auto status_of = [&](const std::string& path) {
    ClientCall call;
    call.url = must(Url::parse(front->url() + path));
    call.deadline = sooner(kNoDeadline, std::chrono::seconds(60));
    return must(client_->send(call)).status;
  };
  for (const char* path : {"/health/live", "/health/ready", "/version", "/metrics"}) {
    EXPECT_EQ(status_of(path), 200) << path;
    registered.emplace("GET", path);
  }
  const auto described = openapi_routes("language");
  EXPECT_EQ(registered, (std::set<std::pair<std::string, std::string>>(described.begin(), described.end())));
}

TEST_F(LanguageServerTest, AStreamGivesSignsOfLifeWhileItsPicturesAreLookedAt) {
  eye_.slowness = std::chrono::milliseconds(200);
  const HttpResponse answer = post("/v1/chat/completions", chat(kPicture, R"(,"stream":true)"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, StartsWith(": ping\n\n"));
  EXPECT_THAT(answer.body, HasSubstr("data: [DONE]\n\n"));
}

TEST_F(LanguageServerTest, AnErrorHasItsStatusUntilTheStreamHasBegun) {
  eye_.error = Error{Code::kUnavailable, "http://10.0.0.1:9001 refused"};
  const HttpResponse at_once = post("/v1/chat/completions", chat(kPicture, R"(,"stream":true)"));
  EXPECT_EQ(at_once.status, 503);
  EXPECT_EQ(at_once.headers.find("Retry-After").value_or(""), "5");
  EXPECT_THAT(at_once.body, Not(HasSubstr("10.0.0.1")));
  eye_.slowness = std::chrono::milliseconds(200);
  const HttpResponse later = post("/v1/chat/completions", chat(kPicture, R"(,"stream":true)"));
  EXPECT_EQ(later.status, 200);
  EXPECT_THAT(later.body, HasSubstr("data: {\"error\":{"));
  EXPECT_THAT(later.body, HasSubstr("data: [DONE]"));
}

TEST_F(LanguageServerTest, WhatIsWrongWithTheWeightsIsToldByBothDigests) {
  eye_.error = Error{Code::kFailedPrecondition, "expected vision_digest aa, the vision server has bb"};
  const HttpResponse answer = post("/v1/chat/completions", chat(kPicture));
  EXPECT_EQ(answer.status, 409);
  EXPECT_THAT(answer.body, HasSubstr("model_mismatch"));
  EXPECT_THAT(answer.body, HasSubstr("expected vision_digest aa, the vision server has bb"));
  EXPECT_EQ(answer.headers.find("x-should-retry").value_or(""), "false");
}

TEST_F(LanguageServerTest, PicturesOfARequestAreLookedAtTogether) {
  eye_.slowness = std::chrono::milliseconds(50);
  std::string pictures;
  for (int i = 0; i < 6; ++i) pictures += kPicture;
  const HttpResponse answer = post("/v1/chat/completions", chat(pictures));
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(eye_.looks, 6);
}

// The metadata of a feature file that a client sends could name any picture of anybody.
TEST_F(LanguageServerTest, AFeatureOfARequestNeverTakesAnotherPicturesName) {
  const auto looked = post("/v1/chat/completions", chat(kPicture));
  const Json whole = must(Json::parse(looked.body, "answer"));
  const std::string name(must(must(must(whole.root().at("vision")).elements())[0].at("feature_id")->string()));

  FeatureKey key;
  key.id = must(FeatureId::from_hex(name));
  key.vision_digest = must(side_->vision_digest());
  Matrix rows(4, side_->config().text.hidden_size);
  std::fill_n(rows.data(), rows.size(), -1.0F);
  const auto forged = must(serialize_feature(make_feature(key, {1, 4, 4}, "forged", std::move(rows)), DType::kF32));
  const auto told = post("/v1/chat/completions",
                         chat(R"({"type":"image_features","image_features":")" + encode_base64(forged) + "\"},"));
  EXPECT_EQ(told.status, 200) << told.body;
  EXPECT_THAT(told.body, Not(HasSubstr(name)));
  EXPECT_THAT(told.body, HasSubstr(R"("source":"request")"));
  const Json answer = must(Json::parse(told.body, "answer"));
  const auto usage = must(must(answer.root().at("usage")).at("prompt_tokens_details"));
  // It shares the words before the picture with the other one, and no row.
  EXPECT_LT(must(must(usage.at("cached_tokens")).integer()), 20);
}

TEST_F(LanguageServerTest, NothingIsServedBeyondLoopbackWithoutAKey) {
  for (const char* host : {"0.0.0.0", "::"}) {
    FrontOptions options;
    options.server.host = host;
    const auto front = Front::start(std::move(options), {}, metrics_, log_);
    ASSERT_FALSE(front) << host;
    EXPECT_EQ(front.error().code, Code::kInvalidArgument);
    EXPECT_THAT(front.error().message, HasSubstr("--insecure"));
  }
}

}  // namespace
}  // namespace chiasm
