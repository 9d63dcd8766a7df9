// The client against scripted servers and the real one.
#include "http/client.h"

#include <thread>

#include <gmock/gmock.h>

#include "base/test_support.h"
#include "http/server.h"
#include "http/test_server.h"

namespace chiasm {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

class HttpClientTest : public testing::Test {
 protected:
  static ClientCall call(std::uint16_t port, const std::string& target = "/") {
    ClientCall call;
    call.url = must(Url::parse("http://127.0.0.1:" + std::to_string(port) + target));
    call.deadline = std::chrono::steady_clock::now() + kTestPatience;
    return call;
  }
  // What the client makes of an answer.
  Result<HttpResponse> receive(const std::string& bytes, const std::string& method = "GET",
                               std::uint64_t max_body = 1000) {
    const ScriptServer server([&](RawClient& peer, int) {
      peer.read_until("\r\n\r\n");
      peer.send(bytes);
    });
    ClientCall one = call(server.port());
    one.method = method;
    one.max_body = max_body;
    return client_->send(one);
  }

  std::unique_ptr<HttpClient> client_ = must(HttpClient::create());
};

TEST_F(HttpClientTest, SendsWhatItIsTold) {
  std::string head, body;
  const ScriptServer server([&](RawClient& peer, int) {
    head = peer.read_until("\r\n\r\n");
    body = peer.read_until("the body");
    peer.send("HTTP/1.1 201 Created\r\nX-Note: a\r\nx-note: b\r\nContent-Length: 5\r\n\r\nhello");
  });
  ClientCall one = call(server.port(), "/a%20b?c=d");
  one.method = "POST";
  one.headers = {{"X-Key", "value"}, {"Content-Length", "1"}, {"Host", "elsewhere"}};
  one.body = "the body";
  const HttpResponse answer = must(client_->send(one));
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.body, "hello");
  EXPECT_EQ(answer.headers.find("X-NOTE"), "a");
  EXPECT_THAT(head, testing::StartsWith("POST /a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(server.port()) +
                                        "\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nX-Key: value\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nContent-Length: 8\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("elsewhere")));
  EXPECT_EQ(body, "the body");
}

TEST_F(HttpClientTest, ReadsEveryKindOfBody) {
  EXPECT_EQ(
      must(receive("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n"))
          .body,
      "abcde");
  EXPECT_EQ(must(receive("HTTP/1.1 200 OK\r\n\r\nto the end")).body, "to the end");
  EXPECT_EQ(must(receive("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc")).body, "abc");
  EXPECT_EQ(must(receive("HTTP/1.1 204 No Content\r\n\r\n")).status, 204);
  EXPECT_EQ(must(receive("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")).body, "");
  EXPECT_EQ(must(receive("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD")).headers.find("Content-Length"), "5");
  EXPECT_EQ(must(receive("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + std::string(kOk))).body,
            "ok");
  EXPECT_EQ(must(receive("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")).status, 500);
}

TEST_F(HttpClientTest, RefusesWhatIsNotHttp) {
  for (const std::string bytes :
       {"rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n"})
    EXPECT_EQ(receive(bytes).error().code, Code::kDataLoss) << bytes;
  std::string interim;
  for (int i = 0; i < 100; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
  EXPECT_EQ(receive(interim).error().code, Code::kDataLoss);
  for (const std::string bytes : {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
                                  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"})
    EXPECT_EQ(receive(bytes).error().code, Code::kUnavailable) << bytes;
}

TEST_F(HttpClientTest, AnswersHaveLimits) {
  const std::string large(1001, 'x');
  for (const std::string& bytes :
       {"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + large,
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + large, "HTTP/1.1 200 OK\r\n\r\n" + large,
        "HTTP/1.1 200 OK\r\nA: " + std::string(70'000, 'x')})
    EXPECT_EQ(receive(bytes).error().code, Code::kResourceExhausted) << bytes.substr(0, 60);
  EXPECT_EQ(must(receive("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + large.substr(1))).body.size(), 1000U);
  EXPECT_EQ(must(receive("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", 0)).status, 200);
}

TEST_F(HttpClientTest, KeepsConnections) {
  const ScriptServer server([](RawClient& peer, int) {
    for (int i = 0; i < 3; ++i) {
      peer.read_until("\r\n\r\n");
      peer.send(kOk);
    }
  });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(must(client_->send(call(server.port()))).body, "ok");
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(HttpClientTest, DoesNotKeepWhatMustNotBeKept) {
  for (const std::string bytes :
       {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more", "HTTP/1.1 200 OK\r\n\r\nok"}) {
    const ScriptServer server([&](RawClient& peer, int) {
      peer.read_until("\r\n\r\n");
      peer.send(bytes);
    });
    EXPECT_EQ(must(client_->send(call(server.port()))).body, "ok");
    EXPECT_EQ(must(client_->send(call(server.port()))).body, "ok");
    EXPECT_EQ(server.connections(), 2) << bytes;
  }
}

TEST_F(HttpClientTest, ReplacesAKeptConnectionOnce) {
  // The first connection is closed when the second request has come; every later one does as `later` says.
  const auto server_that = [](ScriptServer::Script later) {
    return std::make_unique<ScriptServer>([later = std::move(later)](RawClient& peer, int connection) {
      peer.read_until("\r\n\r\n");
      if (connection > 0) return later(peer, connection);
      peer.send(kOk);
      peer.read_until("\r\n\r\n");
    });
  };
  const auto good = server_that([](RawClient& peer, int) { peer.send(kOk); });
  EXPECT_TRUE(client_->send(call(good->port())));
  EXPECT_EQ(must(client_->send(call(good->port()))).body, "ok");
  EXPECT_EQ(good->connections(), 2);

  const auto bad = server_that([](RawClient&, int) {});
  EXPECT_TRUE(client_->send(call(bad->port())));
  EXPECT_EQ(client_->send(call(bad->port())).error().code, Code::kUnavailable);
  EXPECT_EQ(bad->connections(), 2);
}

TEST_F(HttpClientTest, DoesNotReplaceWhatHadBegunToAnswer) {
  const ScriptServer server([](RawClient& peer, int) {
    peer.read_until("\r\n\r\n");
    peer.send(kOk);
    peer.read_until("\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\nContent-Le");
  });
  EXPECT_TRUE(client_->send(call(server.port())));
  EXPECT_EQ(client_->send(call(server.port())).error().code, Code::kUnavailable);
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(HttpClientTest, DropsAConnectionThatWasClosedWhileIdle) {
  Flag closed;
  const ScriptServer server([&](RawClient& peer, int connection) {
    peer.read_until("\r\n\r\n");
    peer.send(kOk);
    peer.close();
    if (connection == 0) closed.raise();
  });
  EXPECT_TRUE(client_->send(call(server.port())));
  ASSERT_TRUE(closed.wait());
  ClientCall large = call(server.port());
  large.method = "POST";
  EXPECT_EQ(must(client_->send(large)).body, "ok");
  EXPECT_EQ(server.connections(), 2);
}

TEST_F(HttpClientTest, DeadlinesHold) {
  Flag end;
  const ScriptServer silent([&](RawClient&, int) { end.wait(); });
  ClientCall one = call(silent.port());
  one.deadline = std::chrono::steady_clock::now() + milliseconds(50);
  EXPECT_EQ(client_->send(one).error().code, Code::kDeadlineExceeded);
  one.deadline = std::chrono::steady_clock::now() - milliseconds(1);
  EXPECT_EQ(client_->send(one).error().code, Code::kDeadlineExceeded);
  // Nobody reads the body.
  const std::string large(64 << 20, 'x');
  one.method = "POST";
  one.body = large;
  one.deadline = std::chrono::steady_clock::now() + milliseconds(50);
  EXPECT_EQ(client_->send(one).error().code, Code::kDeadlineExceeded);
  end.raise();
}

TEST_F(HttpClientTest, AnEndlessAnswerEndsWithTheDeadline) {
  const ScriptServer endless([](RawClient& peer, int) {
    peer.read_until("\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\n\r\n");
    while (peer.send("x")) {
    }
  });
  ClientCall one = call(endless.port());
  one.max_body = 1ULL << 40;
  one.deadline = std::chrono::steady_clock::now() + milliseconds(100);
  EXPECT_EQ(client_->send(one).error().code, Code::kDeadlineExceeded);
}

TEST_F(HttpClientTest, CancellingIsNoticed) {
  Flag end, asked;
  const ScriptServer silent([&](RawClient& peer, int) {
    peer.read_until("\r\n\r\n");
    asked.raise();
    end.wait();
  });
  CancelFlag cancel = false;
  ClientCall one = call(silent.port());
  one.cancel = &cancel;
  std::chrono::steady_clock::time_point raised;
  std::thread canceller([&] {
    EXPECT_TRUE(asked.wait());
    raised = std::chrono::steady_clock::now();
    cancel = true;
  });
  EXPECT_EQ(client_->send(one).error().code, Code::kCancelled);
  const auto after = std::chrono::steady_clock::now();
  canceller.join();
  EXPECT_LT(after - raised, std::chrono::seconds(5));  // 50 ms, but for what the machine is busy with
  EXPECT_EQ(client_->send(one).error().code, Code::kCancelled);
  end.raise();
}

TEST_F(HttpClientTest, AnEarlyAnswerEndsTheUpload) {
  ServerOptions options;
  const auto server = must(HttpServer::start(
      options, {{"POST", "/small", [](Exchange& exchange) { exchange.respond({}); }, Route::Lane::kWork, false, 10}}));
  const std::string large(64 << 20, 'x');
  ClientCall one = call(server->port(), "/small");
  one.method = "POST";
  one.body = large;
  const HttpResponse answer = must(client_->send(one));
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(must(client_->send(call(server->port(), "/other"))).status, 404);
}

TEST_F(HttpClientTest, SaysWhyNothingCame) {
  std::uint16_t closed = 0;
  {
    const ScriptServer server([](RawClient&, int) {});
    closed = server.port();
  }
  const auto refused = client_->send(call(closed));
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("http://127.0.0.1:" + std::to_string(closed)));
  ClientCall unknown = call(closed);
  unknown.url.host = "no-such-host.invalid";
  EXPECT_EQ(client_->send(unknown).error().code, Code::kUnavailable);
  ClientCall no_address = call(closed);
  no_address.address = "localhost";
  EXPECT_EQ(client_->send(no_address).error().code, Code::kInvalidArgument);
}

TEST_F(HttpClientTest, SendsNoHeaderThatBreaksOut) {
  const ScriptServer server([](RawClient&, int) {});
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"X", "a\r\nY: b"}, {"X", std::string("a\0b", 3)}, {"X Y", "a"}, {"", "a"}, {"X\r\n", "a"}}) {
    ClientCall one = call(server.port());
    one.headers.add(name, value);
    EXPECT_EQ(client_->send(one).error().code, Code::kInvalidArgument) << name;
  }
  for (const std::string target : {"/a b", "/a\r\nX: y", "a", ""}) {
    ClientCall one = call(server.port());
    one.url.target = target;
    EXPECT_EQ(client_->send(one).error().code, Code::kInvalidArgument) << target;
  }
  ClientCall one = call(server.port());
  one.method = "GET /x";
  EXPECT_EQ(client_->send(one).error().code, Code::kInvalidArgument);
  EXPECT_EQ(server.connections(), 0);
}

TEST_F(HttpClientTest, ConnectsToTheGivenAddress) {
  std::string head;
  const ScriptServer server([&](RawClient& peer, int) {
    head = peer.read_until("\r\n\r\n");
    peer.send(kOk);
  });
  ClientCall one = call(server.port());
  one.url.host = "pictures.invalid";
  one.address = "127.0.0.1";
  EXPECT_EQ(must(client_->send(one)).status, 200);
  EXPECT_THAT(head, HasSubstr("Host: pictures.invalid:"));
}

TEST_F(HttpClientTest, ManyThreadsShareOne) {
  ServerOptions options;
  const auto server = must(HttpServer::start(
      options,
      {{"POST", "/echo", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, exchange.take_body())); },
        Route::Lane::kWork, false, 1 << 20}}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string body(static_cast<std::size_t>(i) * 1000, static_cast<char>('a' + t));
        ClientCall one = call(server->port(), "/echo");
        one.method = "POST";
        one.body = body;
        const auto answer = client_->send(one);
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(answer->body, body);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(Resolve, AnAddressIsItsOwnAnswer) {
  EXPECT_EQ(must(resolve("10.1.2.3")), std::vector<std::string>{"10.1.2.3"});
  EXPECT_EQ(must(resolve("::1")), std::vector<std::string>{"::1"});
  for (const std::string& address : must(resolve("localhost"))) EXPECT_TRUE(is_loopback_address(address)) << address;
  EXPECT_EQ(resolve("no-such-host.invalid").error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace chiasm
