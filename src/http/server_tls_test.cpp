// Server and client over TLS: whom they trust, who the client is, and that bodies and streams come through.
#include <thread>

#include <gmock/gmock.h>

#include "base/test_support.h"
#include "http/client.h"
#include "http/server.h"
#include "http/test_certificates.h"
#include "http/test_server.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

class TlsTest : public testing::Test {
 protected:
  TlsTest() {
    routes_.push_back({"GET", "/who", [](Exchange& exchange) {
                         exchange.respond(HttpResponse::text(200, "you are " + exchange.request().client_name));
                       }});
    routes_.push_back({"POST", "/echo", [](Exchange& exchange) { exchange.respond({200, {}, exchange.take_body()}); },
                       Route::Lane::kWork, false, 16 << 20});
    routes_.push_back({"GET", "/stream", [](Exchange& exchange) {
                         exchange.start(200, {});
                         for (int i = 0; i < 100; ++i) exchange.write(std::string(1000, 's'));
                         exchange.finish();
                       }});
    routes_.push_back({"GET", "/wait", [this](Exchange& exchange) {
                         exchange.on_gone([this] { gone_.raise(); });
                         entered_.raise();
                         EXPECT_TRUE(gone_.wait());
                       }});
    const auto files = authority_.sign("server", "DNS:localhost,IP:127.0.0.1");
    options_.tls = {files.certificate, files.key, {}};
  }

  void start() { server_ = must(HttpServer::start(options_, routes_)); }
  ClientCall call(const std::string& host, const std::string& target) const {
    ClientCall call;
    call.url = must(Url::parse("https://" + host + ":" + std::to_string(server_->port()) + target));
    call.address = "127.0.0.1";
    call.deadline = std::chrono::steady_clock::now() + kTestPatience;
    return call;
  }
  std::unique_ptr<HttpClient> trusting() const {
    ClientOptions options;
    options.ca_file = authority_.file();
    return must(HttpClient::create(options));
  }

  TestAuthority authority_;
  ServerOptions options_;
  std::vector<Route> routes_;
  Flag entered_, gone_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(TlsTest, TalksByNameAndByAddress) {
  start();
  const auto client = trusting();
  EXPECT_EQ(must(client->send(call("localhost", "/who"))).body, "you are ");
  EXPECT_EQ(must(client->send(call("127.0.0.1", "/who"))).body, "you are ");
  for (int i = 0; i < 5; ++i) {  // over a kept connection
    const std::string body(static_cast<std::size_t>(i) << 20, static_cast<char>('a' + i));
    ClientCall echo = call("localhost", "/echo");
    echo.method = "POST";
    echo.body = body;
    EXPECT_EQ(must(client->send(echo)).body, body);
  }
  EXPECT_EQ(must(client->send(call("localhost", "/stream"))).body.size(), 100'000U);
}

TEST_F(TlsTest, TheClientChecksWhomItTalksTo) {
  start();
  const auto wrong_name = trusting()->send(call("pictures.invalid", "/who"));
  EXPECT_EQ(wrong_name.error().code, Code::kUnavailable);
  EXPECT_THAT(wrong_name.error().message, HasSubstr("certificate"));
  ClientCall other_address = call("127.0.0.2", "/who");
  EXPECT_EQ(trusting()->send(other_address).error().code, Code::kUnavailable);
  const auto unknown_authority = must(HttpClient::create())->send(call("localhost", "/who"));
  EXPECT_EQ(unknown_authority.error().code, Code::kUnavailable);
  EXPECT_THAT(unknown_authority.error().message, HasSubstr("certificate"));
}

TEST_F(TlsTest, TheServerChecksClients) {
  options_.tls->client_ca = authority_.file();
  start();
  const auto client_with = [&](TestAuthority& signer, const std::string& name) {
    const auto files = signer.sign(name);
    ClientOptions options;
    options.ca_file = authority_.file();
    options.certificate = files.certificate;
    options.key = files.key;
    return must(HttpClient::create(options));
  };
  const auto client = client_with(authority_, "language server 1");
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(must(client->send(call("localhost", "/who"))).body, "you are language server 1");
  EXPECT_EQ(must(client_with(authority_, std::string("admin\0x", 7))->send(call("localhost", "/who"))).body,
            "you are ");
  EXPECT_EQ(trusting()->send(call("localhost", "/who")).error().code, Code::kUnavailable);
  TestAuthority stranger("test authority");  // of the same name
  EXPECT_EQ(client_with(stranger, "language server 1")->send(call("localhost", "/who")).error().code,
            Code::kUnavailable);
}

TEST_F(TlsTest, AnEarlyAnswerComesThrough) {
  start();
  const std::string large(32 << 20, 'x');
  ClientCall one = call("localhost", "/echo");
  one.method = "POST";
  one.body = large;
  EXPECT_EQ(must(trusting()->send(one)).status, 413);
}

TEST_F(TlsTest, PlainBytesAreNoHandshake) {
  options_.header_timeout = std::chrono::milliseconds(200);
  start();
  RawClient plain(server_->port());
  plain.send("GET /who HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(plain.read_all().find("HTTP/1.1 200"), std::string::npos);
  RawClient silent(server_->port());
  EXPECT_TRUE(silent.sees_end());
}

TEST_F(TlsTest, NoticesAClientThatLeaves) {
  start();
  CancelFlag cancel = false;
  ClientCall one = call("localhost", "/wait");
  one.cancel = &cancel;
  std::thread leaver([&] {
    EXPECT_TRUE(entered_.wait());
    cancel = true;
  });
  EXPECT_EQ(trusting()->send(one).error().code, Code::kCancelled);
  leaver.join();
  EXPECT_TRUE(gone_.wait());
}

TEST_F(TlsTest, TooManyConnectionsAreToldSoInTls) {
  options_.max_connections = 1;
  start();
  const auto first = trusting();
  EXPECT_EQ(must(first->send(call("localhost", "/who"))).status, 200);
  EXPECT_EQ(must(trusting()->send(call("localhost", "/who"))).status, 503);
}

TEST_F(TlsTest, StopsInTheMiddleOfThings) {
  start();
  const auto client = trusting();
  EXPECT_EQ(must(client->send(call("localhost", "/who"))).status, 200);
  RawClient silent(server_->port());
  RawClient half(server_->port());
  half.send(std::string("\x16\x03\x01", 3));
  server_->stop();
  EXPECT_EQ(client->send(call("localhost", "/who")).error().code, Code::kUnavailable);
}

TEST_F(TlsTest, FilesMustHoldWhatTheyShould) {
  const auto files = authority_.sign("one", "DNS:localhost");
  const auto others = authority_.sign("two", "DNS:localhost");
  const auto refused = [&](const ServerTls& tls) {
    options_.tls = tls;
    return HttpServer::start(options_, routes_).error().message;
  };
  EXPECT_THAT(refused({files.certificate, others.key, {}}), HasSubstr(others.key.string()));
  EXPECT_THAT(refused({files.key, files.key, {}}), HasSubstr("expected a certificate in PEM"));
  EXPECT_THAT(refused({files.certificate, files.certificate, {}}), HasSubstr("private key"));
  EXPECT_THAT(refused({files.certificate, files.key, files.key}), HasSubstr("authorities"));
  ClientOptions client;
  client.ca_file = "/nonexistent/ca.pem";
  EXPECT_EQ(HttpClient::create(client).error().code, Code::kInvalidArgument);
  client = {};
  client.certificate = files.certificate;
  EXPECT_EQ(HttpClient::create(client).error().code, Code::kInvalidArgument);
  client.key = others.key;
  EXPECT_EQ(HttpClient::create(client).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace chiasm
