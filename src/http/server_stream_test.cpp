// Answers that take their time: streams, clients that leave, handlers that fail, draining and stopping.
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
using testing::StartsWith;

class ServerStreamTest : public ServerTest {};

TEST_F(ServerStreamTest, StreamsInChunks) {
  Flag go_on;
  route("GET", "/stream", [&](Exchange& exchange) {
    exchange.start(200, {{"Content-Type", "text/event-stream"}, {"Transfer-Encoding", "gzip"}});
    EXPECT_TRUE(exchange.write("first"));
    EXPECT_TRUE(exchange.write(""));  // no end of the stream
    EXPECT_TRUE(go_on.wait());
    EXPECT_TRUE(exchange.write("second"));
    exchange.finish();
    EXPECT_FALSE(exchange.write("too late"));
  });
  start();
  RawClient client(port());
  client.send(get("/stream"));
  const std::string head = client.read_until("first\r\n");  // it does not wait for the end
  EXPECT_THAT(head, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("gzip")));
  go_on.raise();
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "6\r\nsecond\r\n0\r\n\r\n");
  client.send(get("/stream"));
  EXPECT_EQ(client.read_answer().body, "firstsecond");
}

TEST_F(ServerStreamTest, AStreamWaitsForItsReader) {
  const std::string piece(64 << 10, 'x');
  std::atomic<std::size_t> written = 0;
  route("GET", "/stream", [&](Exchange& exchange) {
    exchange.start(200, {});
    for (int i = 0; i < 1024; ++i) {
      if (!exchange.write(piece)) return;
      written += piece.size();
    }
    exchange.finish();
  });
  start();
  RawClient client(port(), 64 << 10);
  client.send(get("/stream"));
  client.read_until("\r\n\r\n");
  // Until it reads, only what the buffers between hold can have been written.
  std::size_t before = 0;
  ASSERT_TRUE(soon([&] {
    const std::size_t now = written;
    std::this_thread::sleep_for(milliseconds(50));
    return now == written && (before = now) > 0;
  }));
  EXPECT_LT(before, 1024 * piece.size() / 2);
  std::size_t got = 0;
  for (std::string line = client.read_until("\r\n"); line != "0\r\n"; line = client.read_until("\r\n")) {
    ASSERT_EQ(line, "10000\r\n");
    got += client.read_until("\r\n").size() - 2;
  }
  EXPECT_EQ(got, 1024 * piece.size());
}

TEST_F(ServerStreamTest, AReaderThatStopsIsLeft) {
  options_.write_timeout = milliseconds(200);
  Flag ended;
  std::atomic<bool> called = false;
  route("GET", "/stream", [&](Exchange& exchange) {
    exchange.on_gone([&] { called = true; });
    exchange.start(200, {});
    const std::string piece(64 << 10, 'x');
    while (exchange.write(piece)) {
    }
    EXPECT_TRUE(exchange.gone());
    ended.raise();
  });
  start();
  RawClient client(port());
  client.send(get("/stream"));
  EXPECT_TRUE(ended.wait());
  server_->stop();
  EXPECT_TRUE(called);
}

TEST_F(ServerStreamTest, NoticesAClientThatLeavesWhileAHandlerWorks) {
  Flag gone, seen;
  std::vector<bool> left;
  options_.on_done = [&](const AccessRecord& record) {
    left.push_back(record.client_left);
    seen.raise();
  };
  std::atomic<int> calls = 0;
  route("GET", "/wait", [&](Exchange& exchange) {
    entered_.raise();
    exchange.on_gone([&] {
      ++calls;
      gone.raise();
    });
    EXPECT_TRUE(gone.wait());
    EXPECT_TRUE(exchange.gone());
    bool at_once = false;
    exchange.on_gone([&] { at_once = true; });
    EXPECT_TRUE(at_once);
    exchange.respond(HttpResponse::text(200, "to nobody"));
  });
  start();
  RawClient client(port());
  client.send(get("/wait"));
  ASSERT_TRUE(entered_.wait());
  client.close();
  EXPECT_TRUE(seen.wait());
  EXPECT_EQ(calls, 1);
  server_->stop();
  EXPECT_EQ(left, std::vector<bool>{true});
}

TEST_F(ServerStreamTest, NoticesAResetAndAHalfClosedConnectionToo) {
  for (const bool half : {false, true}) {
    Flag entered, gone;
    routes_.clear();
    route("GET", "/wait", [&](Exchange& exchange) {
      exchange.on_gone([&] { gone.raise(); });
      entered.raise();
      EXPECT_TRUE(gone.wait());
    });
    start();
    RawClient client(port());
    client.send(get("/wait"));
    ASSERT_TRUE(entered.wait());
    if (half)
      client.shut_sending();
    else
      client.reset();
    EXPECT_TRUE(gone.wait());
    server_->stop();
  }
}

TEST_F(ServerStreamTest, NoticesAClientThatLeavesAStream) {
  Flag ended;
  route("GET", "/stream", [&](Exchange& exchange) {
    exchange.start(200, {});
    while (exchange.write("tick\n")) std::this_thread::sleep_for(milliseconds(1));
    ended.raise();
  });
  start();
  RawClient client(port());
  client.send(get("/stream"));
  client.read_until("tick");
  client.close();
  EXPECT_TRUE(ended.wait());
}

TEST_F(ServerStreamTest, DoesNotCallBackAfterTheHandlerReturned) {
  auto called = std::make_shared<std::atomic<bool>>(false);
  route("GET", "/hello", [=](Exchange& exchange) {
    exchange.on_gone([=] { *called = true; });
    exchange.respond(HttpResponse::text(200, "hello"));
  });
  start();
  {
    RawClient client(port());
    EXPECT_EQ(client.ask(get("/hello")).status, 200);
    EXPECT_EQ(client.ask(get("/hello")).status, 200);
  }
  server_->stop();
  EXPECT_FALSE(*called);
}

TEST_F(ServerStreamTest, AHandlerThatFailsIsA500) {
  std::vector<std::string> failures;
  std::mutex mutex;
  options_.on_failure = [&](std::string_view what) {
    const std::lock_guard lock(mutex);
    failures.emplace_back(what);
  };
  route("GET", "/throw", [](Exchange&) { throw std::runtime_error("secret detail"); });
  route("GET", "/odd", [](Exchange&) { throw 42; });
  route("GET", "/nothing", [](Exchange&) {});
  route("GET", "/twice", [](Exchange& exchange) {
    exchange.respond(HttpResponse::text(200, "once"));
    exchange.respond(HttpResponse::text(500, "twice"));
  });
  start();
  RawClient client(port());
  for (const std::string path : {"/throw", "/odd", "/nothing"}) {
    const HttpResponse answer = client.ask(get(path));
    EXPECT_EQ(answer.status, 500) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("secret")));
  }
  EXPECT_EQ(client.ask(get("/twice")).body, "once");
  server_->stop();
  EXPECT_THAT(failures, testing::ElementsAre("secret detail", "a handler threw something unknown",
                                             "a handler returned without an answer", "a handler answered twice"));
}

TEST_F(ServerStreamTest, AStreamThatFailsHasNoEnd) {
  route("GET", "/throw", [](Exchange& exchange) {
    exchange.start(200, {});
    exchange.write("part");
    throw std::runtime_error("in the middle");
  });
  route("GET", "/unfinished", [](Exchange& exchange) {
    exchange.start(200, {});
    exchange.write("part");
  });
  route("GET", "/late", [](Exchange& exchange) {
    exchange.start(200, {});
    exchange.write("part");
    exchange.respond(HttpResponse::text(500, "too late"));
  });
  start();
  for (const std::string path : {"/throw", "/unfinished", "/late"}) {
    RawClient client(port());
    client.send(get(path));
    const std::string all = client.read_all();
    EXPECT_THAT(all, testing::EndsWith("4\r\npart\r\n")) << path;
    EXPECT_THAT(all, StartsWith("HTTP/1.1 200")) << path;
  }
}

TEST_F(ServerStreamTest, DrainsBeforeItStops) {
  route_slow();
  route_hello();
  route(
      "GET", "/health", [](Exchange& exchange) { exchange.respond(HttpResponse::text(200, "draining")); }, 0,
      Route::Lane::kControl);
  start();
  RawClient slow(port()), idle(port());
  EXPECT_EQ(idle.ask(get("/hello")).status, 200);
  slow.send(get("/slow"));
  ASSERT_TRUE(entered_.wait());
  EXPECT_EQ(server_->running(), 1);
  EXPECT_FALSE(server_->drain(std::chrono::steady_clock::now() + milliseconds(20)));

  const HttpResponse refused = idle.ask(get("/hello"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.find("Retry-After"), "1");
  EXPECT_EQ(refused.headers.find("Connection"), "close");
  RawClient health(port());
  const HttpResponse healthy = health.ask(get("/health"));
  EXPECT_EQ(healthy.body, "draining");
  EXPECT_EQ(healthy.headers.find("Connection"), "close");

  release_.raise();
  EXPECT_TRUE(server_->drain(kNoDeadline));
  EXPECT_EQ(server_->running(), 0);
  const HttpResponse last = slow.read_answer();
  EXPECT_EQ(last.body, "slow");
  EXPECT_EQ(last.headers.find("Connection"), "close");
}

TEST_F(ServerStreamTest, StopEndsWhatRuns) {
  Flag gone;
  route("GET", "/wait", [&](Exchange& exchange) {
    exchange.on_gone([&] { gone.raise(); });
    entered_.raise();
    EXPECT_TRUE(gone.wait());
    exchange.start(200, {});
    EXPECT_FALSE(exchange.write("x"));
  });
  route_echo();
  start();
  RawClient waiting(port()), idle(port()), half(port());
  half.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhal");
  waiting.send(get("/wait"));
  ASSERT_TRUE(entered_.wait());
  server_->stop();
  EXPECT_EQ(server_->running(), 0);
  for (RawClient* client : {&waiting, &idle, &half}) EXPECT_EQ(client->read_all(), "");
  server_->stop();  // again does nothing
}

}  // namespace
}  // namespace chiasm
