// The server over real sockets: routing, bodies, the gate, errors, what it tells of.
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>

#include "http/test_serving.h"

namespace chiasm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

TEST_F(ServerTest, AnswersWithWhatTheHandlerSays) {
  route("GET", "/v1/things/{id}", [](Exchange& exchange) {
    const HttpRequest& request = exchange.request();
    HttpResponse response =
        HttpResponse::json(201, std::string(request.capture("id")) + "|" + request.path + "|" +
                                    std::string(request.query_value("q").value_or("-")) + "|" +
                                    std::string(request.headers.find("x-Extra").value_or("-")) + "|" + request.peer);
    response.headers.add("X-Note", "one\r\nSet-Cookie: two");
    response.headers.add("Content-Length", "3");
    response.headers.add("Bad name", "x");
    exchange.respond(std::move(response));
  });
  start();
  RawClient client(port());
  const HttpResponse answer = client.ask(get("/v1/things/a%20b?q=1%2B1+2", "X-EXTRA:  y \r\n"));
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.body, "a b|/v1/things/a b|1+1 2|y|127.0.0.1");
  EXPECT_EQ(answer.headers.find("Content-Type"), "application/json");
  // No header is smuggled into the answer, and its length is the server's to say.
  EXPECT_EQ(answer.headers.find("X-Note"), "one  Set-Cookie: two");
  EXPECT_FALSE(answer.headers.find("Set-Cookie"));
  EXPECT_FALSE(answer.headers.find("Bad name"));
}

TEST_F(ServerTest, KeepsTheConnectionUnlessAskedNotTo) {
  route_hello();
  start();
  RawClient client(port());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.ask(get("/hello")).body, "hello");
  const HttpResponse last = client.ask(get("/hello", "Connection: close\r\n"));
  EXPECT_EQ(last.body, "hello");
  EXPECT_EQ(last.headers.find("Connection"), "close");
  EXPECT_TRUE(client.sees_end());
}

TEST_F(ServerTest, AHandlerMayEndTheConnection) {
  route("GET", "/bye", [](Exchange& exchange) {
    HttpResponse response = HttpResponse::text(200, "bye");
    response.headers.add("Connection", "close");
    exchange.respond(std::move(response));
  });
  start();
  RawClient client(port());
  EXPECT_EQ(client.ask(get("/bye")).headers.find("Connection"), "close");
  EXPECT_TRUE(client.sees_end());
}

TEST_F(ServerTest, SpeaksHttp10) {
  route_hello();
  route("GET", "/stream", [](Exchange& exchange) {
    exchange.start(200, {});
    exchange.write("one");
    exchange.write("two");
    exchange.finish();
  });
  start();
  RawClient plain(port());
  plain.send("GET /hello HTTP/1.0\r\n\r\n");
  EXPECT_THAT(plain.read_all(), testing::EndsWith("\r\n\r\nhello"));
  RawClient kept(port());
  EXPECT_EQ(kept.ask("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").headers.find("Connection"), "keep-alive");
  EXPECT_EQ(kept.ask("GET /hello HTTP/1.0\r\n\r\n").body, "hello");
  // There are no chunks: the end of the connection is the end of the answer.
  RawClient stream(port());
  stream.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string all = stream.read_all();
  EXPECT_THAT(all, testing::EndsWith("\r\n\r\nonetwo"));
  EXPECT_THAT(all, Not(HasSubstr("Transfer-Encoding")));
}

TEST_F(ServerTest, HeadIsGetWithoutTheBody) {
  route_hello();
  route("GET", "/both", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "get")); });
  route("HEAD", "/both", [](Exchange& exchange) { exchange.respond(HttpResponse::text(202, "")); });
  route("GET", "/stream", [](Exchange& exchange) {
    exchange.start(200, {});
    EXPECT_TRUE(exchange.write("never sent"));
    exchange.finish();
  });
  start();
  RawClient client(port());
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpResponse answer = client.read_answer(true);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.find("Content-Length"), "5");
  client.send("HEAD /both HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_answer(true).status, 202);
  client.send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_answer(true).status, 200);
  client.send("HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_answer(true).status, 404);
  EXPECT_EQ(client.ask(get("/hello")).body, "hello");  // nothing of the bodies is in the way
}

TEST_F(ServerTest, SaysWhichMethodsAPathHas) {
  route_hello();
  route("DELETE", "/hello", [](Exchange& exchange) { exchange.respond({204, {}, "not sent"}); });
  start();
  RawClient client(port());
  const HttpResponse refused = client.ask("PUT /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(refused.status, 405);
  EXPECT_EQ(refused.headers.find("Allow"), "GET, HEAD, DELETE");
  EXPECT_EQ(client.ask(get("/other")).status, 404);
  EXPECT_EQ(client.ask(get("/hello/")).status, 404);
  const HttpResponse gone = client.ask("DELETE /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(gone.status, 204);
  EXPECT_FALSE(gone.headers.find("Content-Length"));
  EXPECT_EQ(client.ask(get("/hello")).status, 200);
}

TEST_F(ServerTest, TakesBodiesByLengthAndInChunks) {
  route_echo();
  start();
  RawClient client(port());
  EXPECT_EQ(client.ask(post("/echo", "by length")).body, "by length");
  EXPECT_EQ(client.ask(post("/echo", "")).body, "");
  EXPECT_EQ(client
                .ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
                     "5;name=\"v\"\r\nin ch\r\n04\r\nunks\r\n0\r\nTrailer: passed over\r\n\r\n")
                .body,
            "in chunks");
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(client.ask(post("/echo", large)).body, large);
}

TEST_F(ServerTest, BytesMayComeOneByOne) {
  route_echo();
  start();
  RawClient client(port());
  for (const std::string& request : {post("/echo", "abc"),
                                     std::string("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                                                 "3\r\nabc\r\n0\r\n\r\n"),
                                     std::string("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                                                 "0\r\n\r\n")}) {
    for (const char c : request) ASSERT_TRUE(client.send(std::string_view(&c, 1)));
    EXPECT_EQ(client.read_answer().body, request.find("abc") != std::string::npos ? "abc" : "");
  }
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  std::atomic<int> at_once = 0, most = 0;
  route("GET", "/n/{n}", [&](Exchange& exchange) {
    most = std::max(most.load(), ++at_once);
    exchange.respond(HttpResponse::text(200, std::string(exchange.request().capture("n"))));
    --at_once;
  });
  route_echo();
  start();
  RawClient client(port());
  std::string all;
  for (int i = 0; i < 100; ++i) all += i % 2 == 0 ? get("/n/" + std::to_string(i)) : post("/echo", std::to_string(i));
  client.send(all);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(client.read_answer().body, std::to_string(i));
  EXPECT_EQ(most, 1);
}

TEST_F(ServerTest, PipelinesMoreThanItReadsAhead) {
  route_hello();
  start();
  RawClient client(port());
  std::thread sender([&] {
    for (int i = 0; i < 2000; ++i) client.send(get("/hello", "X-Padding: " + std::string(200, 'x') + "\r\n"));
  });
  int answered = 0;
  for (int i = 0; i < 2000; ++i) answered += client.read_answer().status == 200 ? 1 : 0;
  sender.join();
  EXPECT_EQ(answered, 2000);
}

TEST_F(ServerTest, ContinuesWhenItIsExpectedTo) {
  route_echo(100);
  start();
  RawClient client(port());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(client.ask("body").body, "body");
  // A body that is refused is not asked for.
  const HttpResponse refused =
      client.ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(refused.status, 413);
  EXPECT_EQ(refused.headers.find("Connection"), "close");
  EXPECT_TRUE(client.sees_end());
  RawClient strange(port());
  EXPECT_EQ(strange.ask("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n").status, 417);
}

TEST_F(ServerTest, TheGateAnswersBeforeTheBodyIsRead) {
  options_.gate = [](const HttpRequest& head, const Route& route) -> std::optional<HttpResponse> {
    if (head.path == "/throw") throw std::runtime_error("the gate");
    if (route.open || head.headers.find("authorization") == "Bearer k") return std::nullopt;
    return HttpResponse::text(401, "who are you?");
  };
  route_echo();
  route_hello();
  route("GET", "/throw", [](Exchange& exchange) { exchange.respond({}); });
  routes_.push_back({"GET", "/health", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "ok")); },
                     Route::Lane::kControl, true, 0});
  start();
  RawClient client(port());
  EXPECT_EQ(client.ask(get("/health")).status, 200);
  EXPECT_EQ(client.ask(get("/hello")).status, 401);
  EXPECT_EQ(client.ask(get("/hello", "Authorization: Bearer k\r\n")).status, 200);
  EXPECT_EQ(client.ask(get("/throw")).status, 500);
  EXPECT_EQ(client.ask(get("/nothing")).status, 404);
  const HttpResponse refused = client.ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.find("Connection"), "close");
}

TEST_F(ServerTest, ErrorsHaveTheBodyThatIsAskedFor) {
  options_.error = [](int status, std::string_view message) {
    if (status == 405) throw std::runtime_error("no body for this one");
    HttpResponse response = HttpResponse::json(200, "{\"error\":\"" + std::string(message) + "\"}");
    if (status == 503) response.headers.add("Retry-After", "7");
    return response;
  };
  options_.max_requests = 1;
  route_slow();
  start();
  RawClient client(port());
  const HttpResponse answer = client.ask(get("/nothing"));
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.body, "{\"error\":\"there is nothing here\"}");
  EXPECT_EQ(client.ask("PUT /slow HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
  client.send(get("/slow"));
  ASSERT_TRUE(entered_.wait());
  RawClient other(port());
  EXPECT_EQ(other.ask(get("/slow")).headers.find("Retry-After"), "7");
  release_.raise();
  EXPECT_EQ(client.read_answer().body, "slow");
}

TEST_F(ServerTest, DeadlinesComeFromTheHeaderWithinTheLimit) {
  options_.request_timeout = milliseconds(100'000);
  route("GET", "/left", [](Exchange& exchange) {
    const auto left = exchange.request().deadline - std::chrono::steady_clock::now();
    exchange.respond(HttpResponse::text(200, std::to_string(std::chrono::ceil<std::chrono::seconds>(left).count())));
  });
  start();
  RawClient client(port());
  EXPECT_GT(std::stoi(client.ask(get("/left")).body), 30);
  EXPECT_LE(std::stoi(client.ask(get("/left", "X-Request-Timeout-Ms: 5000\r\n")).body), 5);
  EXPECT_LE(std::stoi(client.ask(get("/left", "x-request-timeout-ms: 999999999\r\n")).body), 100);
  EXPECT_EQ(client.ask(get("/left", "x-request-timeout-ms: soon\r\n")).status, 400);
}

TEST_F(ServerTest, TellsWhatWasDone) {
  std::vector<std::string> lines;
  std::mutex mutex;
  options_.on_done = [&](const AccessRecord& record) {
    const std::lock_guard lock(mutex);
    lines.push_back(fmt::format("{} {} {} {} {} {}", record.method, record.route, record.path, record.status,
                                record.response_bytes > 0, record.client_left));
  };
  route("GET", "/a/{b}", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "x")); });
  start();
  RawClient client(port());
  client.ask(get("/a/1"));
  client.ask(get("/b"));
  client.ask("rubbish\r\n\r\n");
  ASSERT_TRUE(soon([&] {
    const std::lock_guard lock(mutex);
    return lines.size() == 3;
  }));
  server_->stop();
  EXPECT_THAT(lines,
              testing::ElementsAre("GET /a/{b} /a/1 200 true false", "GET  /b 404 true false", "   400 true false"));
}

TEST_F(ServerTest, RefusesToStartWithWhatCannotWork) {
  route_hello();
  start();
  ServerOptions taken;
  taken.port = port();
  EXPECT_EQ(HttpServer::start(taken, routes_).error().code, Code::kUnavailable);
  ServerOptions nowhere;
  nowhere.host = "no such host";
  EXPECT_FALSE(HttpServer::start(nowhere, routes_));
  ServerOptions tls;
  tls.tls = {"/nonexistent/certificate.pem", "/nonexistent/key.pem", {}};
  EXPECT_THAT(HttpServer::start(tls, routes_).error().message, HasSubstr("/nonexistent/certificate.pem"));
  EXPECT_EQ(HttpServer::start({}, {{"GET", "hello", routes_[0].handler}}).error().code, Code::kInvalidArgument);
  ServerOptions named;
  named.host = "localhost";
  EXPECT_TRUE(HttpServer::start(named, routes_));
}

}  // namespace
}  // namespace chiasm
