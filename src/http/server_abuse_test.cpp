// The server against clients that do it wrong: smuggled requests, slow ones, too many, too large.
#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <sys/resource.h>

#include "base/test_support.h"
#include "http/server.h"
#include "http/test_server.h"

namespace chiasm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr std::string_view kGet = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";

class ServerAbuseTest : public testing::Test {
 public:
  ~ServerAbuseTest() override { release_.raise(); }

 protected:
  ServerAbuseTest() {
    routes_.push_back(
        {"GET", "/hello", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "hello")); }});
    routes_.push_back({"POST", "/echo",
                       [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, exchange.take_body())); },
                       Route::Lane::kWork, false, 1 << 20});
    routes_.push_back({"GET", "/hold", [this](Exchange& exchange) {
                         ++holding_;
                         EXPECT_TRUE(release_.wait());
                         exchange.respond(HttpResponse::text(200, "held"));
                       }});
    routes_.push_back({"GET", "/health",
                       [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "healthy")); },
                       Route::Lane::kControl});
  }
  void start() { server_ = must(HttpServer::start(options_, routes_)); }
  std::uint16_t port() const { return server_->port(); }
  bool wait_for_holding(int count) {
    for (int i = 0; i < 60'000 && holding_ < count; ++i) std::this_thread::sleep_for(milliseconds(1));
    return holding_ >= count;
  }

  // A permit is given back just after its answer has been sent.
  bool becomes_idle() {
    for (int i = 0; i < 60'000 && server_->running() > 0; ++i) std::this_thread::sleep_for(milliseconds(1));
    return server_->running() == 0;
  }

  ServerOptions options_;
  std::vector<Route> routes_;
  Flag release_;
  std::atomic<int> holding_ = 0;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(ServerAbuseTest, AmbiguousRequestsAreRefusedAndTheConnectionEnds) {
  start();
  const std::string post = "POST /echo HTTP/1.1\r\nHost: x\r\n";
  const std::string smuggled = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string cases[] = {
      post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
      post + "Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + smuggled,
      post + "Content-Length: 0, 35\r\n\r\n" + smuggled,
      post + "Content-Length: +5\r\n\r\nabcde" + smuggled,
      post + "Content-Length: 0x5\r\n\r\nabcde" + smuggled,
      post + "Content-Length: -1\r\n\r\n" + smuggled,
      post + "Content-Length: \r\n\r\n" + smuggled,
      post + "Content-Length: 99999999999999999999\r\n\r\n" + smuggled,
      post + "Content-Length : 5\r\n\r\nabcde" + smuggled,
      post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
      post +
          "Transfer-Encoding:\x0b"
          "chunked\r\n\r\n0\r\n\r\n" +
          smuggled,
      post + "X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + smuggled,
      post + "X: a\nContent-Length: 5\r\n\r\nabcde" + smuggled,
      post + "X: a\rContent-Length: 5\r\n\r\nabcde" + smuggled,
      post + std::string("X: a\0b\r\n\r\n", 10) + smuggled,
      post + "X: a\x7f\r\n\r\n" + smuggled,
      post + "X\r\n\r\n" + smuggled,
      post + ": x\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\n\r\n5\r\nabcdef\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\n\r\n5 5\n\r\nabcde\r\n0\r\n\r\n" + smuggled,
      post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\nY: b\r\n\r\n" + smuggled,
      "GET /hello HTTP/1.1\r\n\r\n" + smuggled,
      "GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + smuggled,
      " GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET  /hello HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET /hello\r\nHost: x\r\n\r\n" + smuggled,
      "GET /hello HTTP/2.0\r\nHost: x\r\n\r\n" + smuggled,
      "GET hello HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET /he%zzllo HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET /hello%00 HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET /a/../hello HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET /a/%2e%2E/hello HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "GET /a%2f../hello HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
      "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
      std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
      "GET /hello HTTP/1.1\nHost: x\n\n",
  };
  for (const std::string& request : cases) {
    RawClient client(port());
    client.send(request);
    const std::string all = client.read_all();
    EXPECT_THAT(all, testing::StartsWith("HTTP/1.1 400 ")) << request;
    EXPECT_THAT(all, HasSubstr("Connection: close\r\n")) << request;
    EXPECT_EQ(all.find("HTTP/1.1 200"), std::string::npos) << "two answers to " << request;
    EXPECT_FALSE(client.was_reset()) << request;
  }
}

TEST_F(ServerAbuseTest, HeadersHaveLimits) {
  options_.max_header = 2048;
  options_.max_headers = 20;
  start();
  const auto status_of = [&](const std::string& request) {
    RawClient client(port());
    client.send(request);
    return client.read_answer().status;
  };
  EXPECT_EQ(status_of("GET /" + std::string(4000, 'a')), 414);
  EXPECT_EQ(status_of("GET /hello HTTP/1.1\r\nHost: x\r\nX: " + std::string(4000, 'a')), 431);
  std::string many = "GET /hello HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 19; ++i) many += "X: y\r\n";
  EXPECT_EQ(status_of(many + "\r\n"), 200);
  EXPECT_EQ(status_of(many + "X: y\r\n\r\n"), 431);
  // A head that never ends, sent as fast as it goes.
  RawClient client(port());
  bool open = true;
  for (int i = 0; i < 1000 && open; ++i) open = client.send("X-Header: " + std::string(1000, 'a') + "\r\n");
  EXPECT_NE(client.read_answer().status, 200);
  options_.max_header = 200'000;
  start();
  EXPECT_EQ(status_of("GET /hello HTTP/1.1\r\nHost: x\r\nX: " + std::string(100'000, 'a') + "\r\n\r\n"), 431);
}

TEST_F(ServerAbuseTest, BodiesHaveLimits) {
  start();
  const auto ask = [&](const std::string& request) {
    RawClient client(port());
    client.send(request);
    HttpResponse answer = client.read_answer();
    EXPECT_EQ(answer.headers.find("Connection"), "close");
    EXPECT_FALSE(client.was_reset());
    return answer.status;
  };
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n"), 413);
  EXPECT_EQ(ask("GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na"), 413);
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n"), 413);
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"), 413);
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"), 400);
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(2000, 'a')),
            400);
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + std::string(9000, 'a')),
            400);
}

TEST_F(ServerAbuseTest, ARefusedBodyInFlightIsNoReset) {
  start();
  // More than the socket buffers hold, sent by a client that looks at the answer only afterwards.
  const std::string body(16 << 20, 'x');
  RawClient client(port());
  EXPECT_TRUE(
      client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n"));
  EXPECT_TRUE(client.send(body));
  EXPECT_EQ(client.read_answer().status, 413);
  EXPECT_TRUE(client.sees_end());
}

TEST_F(ServerAbuseTest, SlowHeadersAreGivenUp) {
  options_.header_timeout = milliseconds(100);
  start();
  RawClient client(port());
  client.send("GET /hello HTTP/1.1\r\n");
  EXPECT_EQ(client.read_answer().status, 408);
  EXPECT_TRUE(client.sees_end());
  // A byte now and then does not help.
  RawClient dripping(port());
  std::atomic<bool> stop = false;
  std::thread drip([&] {
    for (const char c : std::string(100'000, 'G')) {
      if (stop || !dripping.send(std::string_view(&c, 1))) return;
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  EXPECT_EQ(dripping.read_answer().status, 408);
  stop = true;
  drip.join();
}

TEST_F(ServerAbuseTest, SlowBodiesAreGivenUpAndTheirPermitsGivenBack) {
  options_.body_timeout = milliseconds(100);
  options_.max_requests = 1;
  start();
  for (int i = 0; i < 3; ++i) {
    RawClient client(port());
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    EXPECT_EQ(client.read_answer().status, 408);
    EXPECT_TRUE(client.sees_end());
    EXPECT_TRUE(becomes_idle());
  }
  EXPECT_EQ(RawClient(port()).ask(kGet).status, 200);
  EXPECT_TRUE(becomes_idle());
}

TEST_F(ServerAbuseTest, ABodyThatDripsEndsWithItsDeadline) {
  options_.request_timeout = milliseconds(300);
  start();
  RawClient client(port());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
  std::atomic<bool> stop = false;
  std::thread drip([&] {
    while (!stop && client.send("x")) std::this_thread::sleep_for(milliseconds(5));
  });
  EXPECT_EQ(client.read_answer().status, 408);
  stop = true;
  drip.join();
}

TEST_F(ServerAbuseTest, IdleConnectionsAreClosed) {
  options_.idle_timeout = milliseconds(100);
  start();
  RawClient silent(port()), kept(port());
  EXPECT_EQ(kept.ask(kGet).status, 200);
  EXPECT_TRUE(silent.sees_end());
  EXPECT_TRUE(kept.sees_end());
}

TEST_F(ServerAbuseTest, ClientsThatLeaveInTheMiddleLeaveNothingBehind) {
  options_.max_requests = 2;
  start();
  for (int i = 0; i < 50; ++i) {
    RawClient head(port()), body(port()), reset(port());
    head.send("GET /hel");
    body.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    reset.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    reset.reset();
  }
  // Some of them are only looked at now; in the end every permit is free again.
  bool served = false;
  for (int i = 0; i < 10'000 && !served; ++i) {
    served = RawClient(port()).ask(kGet).status == 200;
    if (!served) std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(served);
  EXPECT_TRUE(becomes_idle());
}

TEST_F(ServerAbuseTest, WithoutAPermitOneIsToldAtOnceButHealthIsSeen) {
  options_.max_requests = 2;
  start();
  RawClient first(port()), second(port());
  first.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  second.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(wait_for_holding(2));
  EXPECT_EQ(server_->running(), 2);
  RawClient third(port());
  // Before its body is read.
  const HttpResponse refused = third.ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.find("Retry-After"), "1");
  EXPECT_EQ(refused.headers.find("Connection"), "close");
  EXPECT_EQ(RawClient(port()).ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").body, "healthy");
  release_.raise();
  EXPECT_EQ(first.read_answer().body, "held");
  EXPECT_EQ(second.read_answer().body, "held");
  EXPECT_TRUE(becomes_idle());
  EXPECT_EQ(RawClient(port()).ask(kGet).status, 200);
}

TEST_F(ServerAbuseTest, TheControlLaneHasABoundOfItsOwn) {
  std::atomic<int> inside = 0;
  routes_.push_back({"GET", "/probe",
                     [&](Exchange& exchange) {
                       ++inside;
                       EXPECT_TRUE(release_.wait());
                       exchange.respond(HttpResponse::text(200, "probed"));
                     },
                     Route::Lane::kControl});
  start();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    clients.back()->send("GET /probe HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  for (int i = 0; i < 60'000 && inside < 8; ++i) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(RawClient(port()).ask("GET /probe HTTP/1.1\r\nHost: x\r\n\r\n").status, 503);
  EXPECT_EQ(RawClient(port()).ask(kGet).status, 200);
  EXPECT_TRUE(becomes_idle());  // control requests are none of the work
  release_.raise();
  for (auto& client : clients) EXPECT_EQ(client->read_answer().body, "probed");
}

TEST_F(ServerAbuseTest, BodiesShareABudget) {
  options_.max_buffered = 100'000;
  std::atomic<int> inside = 0;
  routes_.push_back({"POST", "/hold",
                     [&](Exchange& exchange) {
                       ++inside;
                       EXPECT_TRUE(release_.wait());
                       exchange.respond(HttpResponse::text(200, exchange.take_body()));
                     },
                     Route::Lane::kWork, false, 1 << 20});
  start();
  const std::string twenty =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + std::string(20000, 'x');
  // Announced is not sent: others have room until it comes.
  RawClient announcing(port());
  announcing.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n");
  for (int i = 0; i < 60'000 && server_->running() == 0; ++i) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(RawClient(port()).ask(twenty).status, 200);
  announcing.close();
  EXPECT_TRUE(becomes_idle());

  RawClient first(port());
  first.send("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + std::string(90000, 'y'));
  for (int i = 0; i < 60'000 && inside == 0; ++i) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(RawClient(port()).ask(twenty).status, 503);
  RawClient chunked(port());
  EXPECT_EQ(chunked
                .ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n" +
                     std::string(20000, 'x') + "\r\n")
                .status,
            503);
  RawClient small(port());
  EXPECT_EQ(small.ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nsmall").body, "small");
  release_.raise();
  EXPECT_EQ(first.read_answer().body.size(), 90000U);
  // What was held is free again.
  const std::string large = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n" + std::string(80000, 'x');
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(becomes_idle());
    EXPECT_EQ(RawClient(port()).ask(large).status, 200);
  }
}

TEST_F(ServerAbuseTest, TooManyConnectionsAreToldSo) {
  options_.max_connections = 4;
  start();
  std::vector<std::unique_ptr<RawClient>> kept;
  for (int i = 0; i < 4; ++i) {
    kept.push_back(std::make_unique<RawClient>(port()));
    EXPECT_EQ(kept.back()->ask(kGet).status, 200);
  }
  for (int i = 0; i < 20; ++i) {
    RawClient client(port());
    client.send(kGet);
    const HttpResponse refused = client.read_answer();
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.headers.find("Retry-After"), "1");
    EXPECT_TRUE(client.sees_end());
  }
  EXPECT_EQ(kept[0]->ask(kGet).status, 200);
  kept.clear();
  bool served = false;
  for (int i = 0; i < 10'000 && !served; ++i) {
    served = RawClient(port()).ask(kGet).status == 200;
    if (!served) std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(served);
}

TEST_F(ServerAbuseTest, ThreeHundredAtOnceAreAnsweredOrRefused) {
  options_.max_requests = 8;
  options_.max_connections = 200;
  routes_.push_back({"POST", "/work",
                     [](Exchange& exchange) {
                       std::this_thread::sleep_for(milliseconds(2));
                       exchange.respond(HttpResponse::text(200, exchange.take_body()));
                     },
                     Route::Lane::kWork, false, 1 << 20});
  start();
  constexpr int kClients = 300;
  std::atomic<int> answered = 0, refused = 0, other = 0;
  std::vector<std::thread> threads;
  threads.reserve(kClients);
  Flag go;
  for (int i = 0; i < kClients; ++i)
    threads.emplace_back([&, i] {
      const std::string body(10'000, static_cast<char>('a' + i % 26));
      ASSERT_TRUE(go.wait());
      RawClient client(port());
      client.send("POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n" + body);
      const HttpResponse answer = client.read_answer();
      if (answer.status == 200 && answer.body == body)
        ++answered;
      else if (answer.status == 503)
        ++refused;
      else
        ++other;
    });
  go.raise();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered + refused, kClients);
  EXPECT_GE(answered, 8);
  EXPECT_EQ(other, 0);
}

TEST_F(ServerAbuseTest, WithoutDescriptorsNobodyIsLeftHanging) {
  start();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(std::make_unique<RawClient>(port()));
  for (auto& client : clients) EXPECT_EQ(client->ask(kGet).status, 200);
  // One more for the client's own end, none for the server's.
  const int next = ::dup(0);
  ::close(next);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(next) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  {
    RawClient client(port());
    client.send(kGet);
    client.read_all();  // closed, one way or another
  }
  EXPECT_EQ(clients[0]->ask(kGet).status, 200);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(RawClient(port()).ask(kGet).status, 200);
}

}  // namespace
}  // namespace chiasm
