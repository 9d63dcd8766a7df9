// The vision server's routes, driven without sockets.
#include "roles/vision_server.h"

#include <atomic>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_support.h"
#include "features/feature_file.h"
#include "roles/test_exchange.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

bool until(const std::function<bool()>& holds) {
  const Deadline give_up = std::chrono::steady_clock::now() + 60s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

std::string eval_file(const std::string& name) {
  const auto bytes = must(read_file(toytown_dir() / "eval" / name, 1 << 24));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string header(const HttpResponse& response, std::string_view name) {
  return std::string(response.headers.find(name).value_or("(none)"));
}

Feature feature_in(const HttpResponse& response) {
  auto parsed = parse_feature(std::as_bytes(std::span(response.body)), "answer");
  EXPECT_TRUE(parsed.has_value()) << response.body.substr(0, 300);
  return parsed ? std::move(*parsed) : Feature{};
}

// Holds passes back: each waits, when it is done, until it is let on. The side may outlive it.
class Gate {
 public:
  std::function<void(const EncodePass&)> on_pass() {
    return [state = state_](const EncodePass&) {
      ++state->passes;
      EXPECT_TRUE(until([&] { return state->open.load(); }));
    };
  }
  int passes() const { return state_->passes; }
  void open() { state_->open = true; }

 private:
  struct State {
    std::atomic<int> passes = 0;
    std::atomic<bool> open = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class VisionServerTest : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_CACHE_HOME", (folder_.path() / "cache").c_str(), 1);
    options_.model = toytown_dir();
    server_options_.version = "1.2.3";
  }

  void open() {
    side_ = must(VisionSide::open(options_, threads_));
    server_ = std::make_unique<VisionServer>(*side_, server_options_);
    routes_ = server_->routes();
  }

  HttpResponse post(HttpRequest request) const {
    request.method = "POST";
    TestExchange exchange(std::move(request));
    return answer_of(routes_, exchange, "/v1/features");
  }
  HttpResponse post(std::string body, Headers headers = {}) const {
    HttpRequest request;
    request.body = std::move(body);
    request.headers = std::move(headers);
    return post(std::move(request));
  }
  HttpResponse about(const std::string& method, const std::string& id, Headers headers = {}) const {
    HttpRequest request;
    request.method = method;
    request.captures = {{"id", id}};
    request.headers = std::move(headers);
    TestExchange exchange(std::move(request));
    return answer_of(routes_, exchange, "/v1/features/{id}");
  }
  std::future<HttpResponse> post_later(std::string body, Headers headers = {}) const {
    return std::async(std::launch::async, [this, body = std::move(body), headers = std::move(headers)]() mutable {
      return post(std::move(body), std::move(headers));
    });
  }

  static void expect_error(const HttpResponse& response, int status, const std::string& words,
                           const std::string& param) {
    EXPECT_EQ(response.status, status) << response.body;
    const Json json = must(Json::parse(response.body, "answer"));
    const JsonValue error = must(json.root().at("error"));
    EXPECT_THAT(std::string(must(must(error.at("message")).string())), AllOf(HasSubstr(words), Not(HasSubstr("/"))));
    const JsonValue told = must(error.at("param"));
    EXPECT_EQ(told.is_null() ? "" : std::string(must(told.string())), param);
  }

  TemporaryFolder folder_;
  ThreadPool threads_{2};
  VisionSideOptions options_;
  VisionServerOptions server_options_;
  std::unique_ptr<VisionSide> side_;
  std::unique_ptr<VisionServer> server_;
  std::vector<Route> routes_;
};

std::string form(const std::vector<std::pair<std::string, std::string>>& parts) {
  std::string out;
  for (const auto& [name, bytes] : parts)
    out += "--BOUNDARY\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + bytes + "\r\n";
  return out + "--BOUNDARY--\r\n";
}

const Headers kForm{{"Content-Type", "multipart/form-data; boundary=BOUNDARY"}};

TEST_F(VisionServerTest, APictureBecomesItsFeatureFileAndIsKnownThen) {
  open();
  const std::string picture = eval_file("scene-00.png");
  const HttpResponse first = post(picture, {{"Content-Type", "image/png"}});
  ASSERT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(header(first, "Content-Type"), "application/octet-stream");
  EXPECT_EQ(header(first, "X-Feature-Source"), "encoded");
  const Feature feature = feature_in(first);
  const std::string id = feature.meta.id.hex();
  EXPECT_EQ(header(first, "X-Feature-Id"), id);
  EXPECT_EQ(header(first, "ETag"), "\"" + id + "\"");
  EXPECT_EQ(header(first, "X-Feature-Tokens"), std::to_string(feature.rows.rows()));
  EXPECT_GT(std::strtod(header(first, "X-Vision-Ms").c_str(), nullptr), 0);
  EXPECT_EQ(feature.meta.vision_digest, side_->vision_digest());
  const auto bytes = std::as_bytes(std::span(picture));
  EXPECT_EQ(feature.meta.id, must(side_->key_of(std::vector{bytes})).id);

  const HttpResponse second = post(picture);
  EXPECT_EQ(header(second, "X-Feature-Source"), "memory");
  EXPECT_EQ(second.body, first.body);
  EXPECT_EQ(side_->codec_stats().decodes, 1);

  const HttpResponse got = about("GET", id), head = about("HEAD", id);
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(got.body, first.body);
  EXPECT_EQ(header(head, "ETag"), header(got, "ETag"));
  for (const std::string& known :
       {header(got, "ETag"), "W/" + header(got, "ETag"), std::string("*"), "\"other\", " + header(got, "ETag")}) {
    const HttpResponse unchanged = about("GET", id, {{"If-None-Match", known}});
    EXPECT_EQ(unchanged.status, 304) << known;
    EXPECT_EQ(unchanged.body, "");
    EXPECT_EQ(header(unchanged, "ETag"), header(got, "ETag"));
  }
  EXPECT_EQ(about("GET", id, {{"If-None-Match", "\"other\""}}).status, 200);
  // A description is another thing than the file.
  EXPECT_EQ(about("GET", id, {{"If-None-Match", header(got, "ETag")}, {"Accept", "application/json"}}).status, 200);
}

TEST_F(VisionServerTest, ItsDescriptionIsJson) {
  open();
  const HttpResponse response =
      post(eval_file("scene-00.png"), {{"Accept", "text/html, Application/JSON;q=0.9, */*;q=0.1"}});
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(header(response, "Content-Type"), "application/json");
  const Json json = must(Json::parse(response.body, "answer"));
  const auto text = [&](std::string_view field) { return std::string(must(must(json.root().at(field)).string())); };
  const auto number = [&](std::string_view field) { return must(must(json.root().at(field)).integer()); };
  EXPECT_EQ(text("object"), "feature");
  EXPECT_EQ(text("id"), header(response, "X-Feature-Id"));
  EXPECT_EQ(text("vision_digest"), side_->vision_digest().hex());
  EXPECT_EQ(text("preprocess_digest"), side_->preprocess_digest().hex());
  EXPECT_EQ(text("image_digest").size(), 64U);
  EXPECT_EQ(text("model"), "toytown");
  EXPECT_EQ(text("dtype"), "F32");
  EXPECT_EQ(text("source"), "encoded");
  const auto grid = integers<std::int64_t>(must(json.root().at("grid_thw")));
  ASSERT_EQ(grid.size(), 3U);
  EXPECT_EQ(grid[0] * grid[1] * grid[2], 4 * number("tokens"));
  EXPECT_EQ(number("width"), side_->config().vision.hidden_size);
  const JsonValue ms = must(json.root().at("ms"));
  double sum = 0;
  for (const char* stage : {"decode", "resize", "patchify", "encode"}) {
    EXPECT_GT(must(must(ms.at(stage)).number()), 0) << stage;
    sum += must(must(ms.at(stage)).number());
  }
  EXPECT_GE(must(must(ms.at("total")).number()) + 0.01, sum);
  EXPECT_EQ(header(about("GET", text("id"), {{"Accept", "application/json"}}), "Content-Type"), "application/json");
  EXPECT_EQ(header(post(eval_file("scene-00.png"), {{"Accept", "application/jsonish"}}), "Content-Type"),
            "application/octet-stream");
}

TEST_F(VisionServerTest, FormsHoldPicturesVideosAndBounds) {
  open();
  const std::string picture = eval_file("scene-00.png");
  const HttpResponse plain = post(picture), image = post(form({{"image", picture}}), kForm);
  EXPECT_EQ(header(image, "X-Feature-Source"), "memory");
  EXPECT_EQ(image.body, plain.body);

  const HttpResponse bounded = post(form({{"min_pixels", "784"}, {"image", picture}, {"max_pixels", "15680"}}), kForm);
  ASSERT_EQ(bounded.status, 200) << bounded.body;
  EXPECT_LE(feature_in(bounded).rows.rows(), 20);
  HttpRequest query;
  query.body = picture;
  query.query = {{"min_pixels", "784"}, {"max_pixels", "15680"}, {"other", "is not ours"}};
  const HttpResponse same = post(std::move(query));
  EXPECT_EQ(same.body, bounded.body);
  EXPECT_EQ(header(same, "X-Feature-Source"), "memory");

  std::vector<std::pair<std::string, std::string>> frames;
  for (int i = 0; i < 4; ++i) frames.emplace_back("frame", eval_file(fmt::format("video-frame-{}.png", i)));
  const HttpResponse video = post(form(frames), kForm);
  ASSERT_EQ(video.status, 200) << video.body;
  EXPECT_EQ(feature_in(video).meta.grid_thw[0], 2);
  std::swap(frames[0], frames[3]);  // their order counts
  EXPECT_NE(header(post(form(frames), kForm), "X-Feature-Id"), header(video, "X-Feature-Id"));
  EXPECT_EQ(about("GET", header(video, "X-Feature-Id")).body, video.body);
}

TEST_F(VisionServerTest, WhatIsWrongWithARequestIsSaid) {
  server_options_.max_frames = 2;
  options_.limits.max_pixels = 400'000;
  options_.service.max_picture_tokens = 60;
  open();
  const std::string picture = eval_file("scene-16.png");
  const std::string broken = eval_file("scene-03.jpg").substr(0, 9000);
  expect_error(post(""), 400, "empty body", "image");
  expect_error(post("no picture at all"), 400, "expected JPEG, PNG, WebP, GIF or BMP", "image");
  {
    HttpRequest request;
    request.body = broken;
    request.query = {{"min_pixels", "1"}, {"max_pixels", "31360"}};
    expect_error(post(std::move(request)), 400, "JPEG: truncated", "image");
  }
  // A BMP whose header says 400 x 1 and 2000 x 2000 pixels: refused before a pixel is looked for.
  const auto bmp = [](std::int32_t width, std::int32_t height) {
    std::string out(54, '\0');
    out[0] = 'B', out[1] = 'M', out[10] = 54, out[14] = 40, out[26] = 1, out[28] = 24;
    for (int i = 0; i < 4; ++i) {
      out[18 + i] = static_cast<char>(width >> (8 * i));
      out[22 + i] = static_cast<char>(height >> (8 * i));
    }
    return out;
  };
  expect_error(post(bmp(402, 1)), 400, "aspect ratio of at most 200, got 402.0", "image");
  expect_error(post(bmp(2000, 2000)), 400, "at most 400000 pixels, the header says 2000 x 2000", "image");
  expect_error(post(picture), 400, "at most 60 tokens, its size gives", "image");
  EXPECT_EQ(side_->codec_stats().decodes, 1);  // of the truncated one

  const auto with_query = [&](const char* name, const char* value) {
    HttpRequest request;
    request.body = picture;
    request.query = {{name, value}};
    return post(std::move(request));
  };
  for (const char* wrong : {"", "many", "5x", "1.5", "99999999999999999999", " 7"})
    expect_error(with_query("max_pixels", wrong), 400, "expected a whole number", "max_pixels");
  expect_error(with_query("min_pixels", "-4"), 400, "expected 1 <= min_pixels", "min_pixels");
  expect_error(with_query("max_pixels", "783"), 400, "expected 1 <= min_pixels <= max_pixels", "max_pixels");
  expect_error(post(form({{"image", picture}, {"min_pixels", "1"}, {"min_pixels", "1"}}), kForm), 400, "more than once",
               "min_pixels");
  expect_error(post(form({{"image", picture}, {"image", picture}}), kForm), 400, "one part named image", "image");
  expect_error(post(form({{"image", picture}, {"frame", picture}}), kForm), 400, "one part named image", "frame");
  expect_error(post(form({{"picture", picture}}), kForm), 400, "expected parts named", "");
  expect_error(post(form({{"min_pixels", "1"}}), kForm), 400, "got none", "image");
  expect_error(post(form({{"frame", picture}, {"frame", picture}, {"frame", picture}}), kForm), 400, "at most 2 frames",
               "frame");
  EXPECT_EQ(post(form({{"frame", picture}}), {{"Content-Type", "multipart/form-data"}}).status, 400);
  EXPECT_EQ(post("--B\r\nnonsense", {{"Content-Type", "multipart/form-data; boundary=B"}}).status, 400);
  expect_error(post(form({{"frame", eval_file("scene-00.png")}, {"frame", picture}}), kForm), 400,
               "frames of one video must be of one size", "frame");

  for (const char* method : {"GET", "HEAD", "DELETE"}) {
    for (const std::string& id : {std::string("abc"), std::string(63, 'a'), std::string(64, 'g'), std::string(64, 'A')})
      expect_error(about(method, id), 400, "64 lower-case hexadecimal digits", "id");
    expect_error(about(method, std::string(64, '0')), 404, "No feature is kept", "id");
  }
}

TEST_F(VisionServerTest, OnePictureIsEncodedOnceAndDifferentOnesTogether) {
  Gate gate;
  options_.service.on_pass = gate.on_pass();
  open();
  ASSERT_EQ(post(eval_file("scene-00.png")).status, 200);
  ASSERT_TRUE(until([&] { return gate.passes() == 1; }));  // which holds the encoder until all are there
  std::deque<std::future<HttpResponse>> answers;
  for (int i = 1; i <= 5; ++i)
    for (int time = 0; time < 3; ++time)
      answers.push_back(post_later(eval_file(fmt::format("scene-{:02}.{}", i, i == 3 ? "jpg" : "png"))));
  EXPECT_TRUE(
      until([&] { return side_->encode_status().ready_pictures == 5 && side_->source().counters().waiting == 10; }));
  gate.open();
  for (auto& answer : answers) EXPECT_EQ(answer.get().status, 200);
  const EncodeServiceStatus status = side_->encode_status();
  EXPECT_EQ(status.pictures, 6U);
  EXPECT_EQ(status.batches, 2U);
  EXPECT_EQ(side_->source().counters().encoded, 6U);
  EXPECT_EQ(side_->codec_stats().decodes, 6);
}

TEST_F(VisionServerTest, AFullQueueIsToldAtOnce) {
  Gate gate;
  options_.service.on_pass = gate.on_pass();
  options_.service.max_queued_tokens = 1;
  open();
  ASSERT_EQ(post(eval_file("scene-00.png")).status, 200);  // alone it is admitted
  ASSERT_TRUE(until([&] { return gate.passes() == 1; }));
  std::future<HttpResponse> waits = post_later(eval_file("scene-01.png"));
  EXPECT_TRUE(until([&] { return side_->encode_status().ready_pictures == 1; }));
  const HttpResponse refused = post(eval_file("scene-02.png"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_GE(std::atoi(header(refused, "Retry-After").c_str()), 1);
  EXPECT_EQ(post(eval_file("scene-00.png")).status, 200);  // what is known needs no room
  EXPECT_EQ(side_->codec_stats().decodes, 2);
  gate.open();
  EXPECT_EQ(waits.get().status, 200);
  EXPECT_EQ(post(eval_file("scene-02.png")).status, 200);
}

TEST_F(VisionServerTest, LateAndAbandonedRequestsAreDropped) {
  Gate gate;
  options_.service.on_pass = gate.on_pass();
  open();
  ASSERT_EQ(post(eval_file("scene-00.png")).status, 200);
  ASSERT_TRUE(until([&] { return gate.passes() == 1; }));
  HttpRequest late;
  late.body = eval_file("scene-01.png");
  late.deadline = std::chrono::steady_clock::now() + 50ms;
  EXPECT_EQ(post(std::move(late)).status, 504);

  HttpRequest request;
  request.method = "POST";
  request.body = eval_file("scene-02.png");
  TestExchange exchange(std::move(request));
  auto left = std::async(std::launch::async, [&] { return answer_of(routes_, exchange, "/v1/features"); });
  EXPECT_TRUE(until([&] { return side_->encode_status().queued_pictures == 1; }));
  exchange.leave();
  EXPECT_EQ(left.get().status, 499);
  gate.open();
  EXPECT_EQ(side_->encode_status().pictures, 1U);
  EXPECT_EQ(side_->encode_status().dropped, 2U);
  EXPECT_EQ(header(post(eval_file("scene-02.png")), "X-Feature-Source"), "encoded");
}

TEST_F(VisionServerTest, TenantsDoNotSeeEachOther) {
  options_.features = folder_.path() / "features";
  open();
  const Headers mine{{"X-Chiasm-Tenant", "mine"}}, theirs{{"X-Chiasm-Tenant", "theirs"}};
  const std::string picture = eval_file("scene-00.png");
  const std::string id = header(post(picture, mine), "X-Feature-Id");
  const HttpResponse other = post(picture, theirs);
  EXPECT_EQ(header(other, "X-Feature-Source"), "encoded");
  EXPECT_NE(header(other, "X-Feature-Id"), id);
  EXPECT_EQ(about("GET", id, mine).status, 200);
  for (const char* method : {"GET", "HEAD", "DELETE"}) {
    expect_error(about(method, id, theirs), 404, "No feature is kept", "id");
    expect_error(about(method, id), 404, "No feature is kept", "id");
  }
  EXPECT_EQ(about("GET", id, {{"X-Chiasm-Tenant", "theirs"}, {"If-None-Match", "*"}}).status, 404);

  open();  // as another process over the same folder
  EXPECT_EQ(header(about("GET", id, mine), "X-Feature-Source"), "disk");
  EXPECT_EQ(about("GET", id, theirs).status, 404);
  const HttpResponse deleted = about("DELETE", id, mine);
  EXPECT_EQ(deleted.status, 200);
  EXPECT_THAT(deleted.body, AllOf(HasSubstr(id), HasSubstr("\"deleted\":true")));
  EXPECT_EQ(about("GET", id, mine).status, 404);
  EXPECT_EQ(about("DELETE", id, mine).status, 404);
  EXPECT_EQ(about("GET", header(other, "X-Feature-Id"), theirs).status, 200);
  EXPECT_EQ(header(post(picture, mine), "X-Feature-Source"), "encoded");
}

TEST_F(VisionServerTest, InfoSaysWhatTheServerIs) {
  open();
  HttpRequest request;
  request.method = "GET";
  TestExchange exchange(std::move(request));
  const HttpResponse response = answer_of(routes_, exchange, "/v1/info");
  ASSERT_EQ(response.status, 200);
  const Json json = must(Json::parse(response.body, "answer"));
  const JsonValue root = json.root();
  EXPECT_EQ(must(must(root.at("object")).string()), "vision.info");
  EXPECT_EQ(must(must(root.at("model")).string()), "toytown");
  EXPECT_EQ(must(must(root.at("version")).string()), "1.2.3");
  EXPECT_EQ(must(must(root.at("vision_digest")).string()), side_->vision_digest().hex());
  EXPECT_EQ(must(must(root.at("hidden_size")).integer()), side_->config().vision.hidden_size);
  // A client can make the preprocess digest from what is said.
  const JsonValue said = must(root.at("preprocessor"));
  const auto integer = [&](std::string_view name) { return must(must(said.at(name)).integer()); };
  const auto triple = [&](std::string_view name) {
    std::array<double, 3> out{};
    const auto values = must(must(said.at(name)).elements());
    EXPECT_EQ(values.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) out[i] = must(values[i].number());
    return out;
  };
  const PreprocessorConfig made{.min_pixels = integer("min_pixels"),
                                .max_pixels = integer("max_pixels"),
                                .patch_size = integer("patch_size"),
                                .temporal_patch_size = integer("temporal_patch_size"),
                                .merge_size = integer("merge_size"),
                                .image_mean = triple("image_mean"),
                                .image_std = triple("image_std"),
                                .unread_fields = {}};
  EXPECT_EQ(made.digest().hex(), must(must(root.at("preprocess_digest")).string()));
  EXPECT_EQ(made.digest(), side_->preprocess_digest());
  const JsonValue limits = must(root.at("limits"));
  EXPECT_EQ(must(must(limits.at("max_body")).integer()), 128 << 20);
  EXPECT_EQ(must(must(limits.at("max_megapixels")).number()), 64);
  EXPECT_EQ(must(must(limits.at("max_picture_tokens")).integer()), 32768);
  EXPECT_EQ(side_->weight_bytes(), 0U);
}

TEST_F(VisionServerTest, OnlyTheUploadTakesABody) {
  server_options_.max_body = 1234;
  open();
  ASSERT_EQ(routes_.size(), 4U);
  for (const Route& route : routes_) {
    EXPECT_EQ(route.max_body, route.method == "POST" ? 1234U : 0U);
    EXPECT_FALSE(route.open);
  }
}

}  // namespace
}  // namespace chiasm
