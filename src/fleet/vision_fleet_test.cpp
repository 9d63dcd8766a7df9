// Which server is asked, and what becomes of those that fail: against servers in memory, in a time of their own.
#include "fleet/vision_fleet.h"

#include <gtest/gtest.h>

#include "fleet/test_fleet.h"

namespace chiasm {
namespace {

using namespace std::chrono_literals;
using Condition = ServerCondition;

TEST_F(Fleet, TheFirstChoiceAnswers) {
  FleetOptions given = options();
  given.secret = "s3cret";
  open(std::move(given));
  const RemoteFeature got = must(encode("picture", "acme"));
  const FeatureKey key = key_of(sample_info(), "picture", "acme");
  EXPECT_EQ(got.feature.meta.id, key.id);
  EXPECT_EQ(values_of(got.feature), values_of(feature_of(key)));
  EXPECT_EQ(got.source, "encoded");
  EXPECT_GE(got.vision_ms, 0);
  ASSERT_EQ(asked().size(), 1U);
  const SeenCall call = net.calls()[0];
  EXPECT_EQ(got.server, "http://" + call.server + ":9001");
  EXPECT_EQ(call.method, "POST");
  EXPECT_EQ(call.target, "/v1/features");
  EXPECT_EQ(call.body, "picture");
  EXPECT_EQ(call.headers.find("content-type"), "application/octet-stream");
  EXPECT_EQ(call.headers.find("authorization"), "Bearer s3cret");
  EXPECT_EQ(call.headers.find("x-chiasm-tenant"), "acme");
  EXPECT_EQ(call.headers.find("x-request-timeout-ms"), "60000");
  EXPECT_EQ(call.deadline, net.now() + 60s);
  EXPECT_EQ(must(encode("picture", "acme")).source, "memory") << "the same server is asked again";
  EXPECT_TRUE(lines.empty());
}

TEST_F(Fleet, WithoutSecretAndTenantNoSuchHeaders) {
  open();
  must(encode());
  EXPECT_EQ(net.calls()[0].server, order()[0]);
  EXPECT_EQ(net.calls()[0].headers.find("authorization"), std::nullopt);
  EXPECT_EQ(net.calls()[0].headers.find("x-chiasm-tenant"), std::nullopt);
}

TEST_F(Fleet, PicturesSpreadOverAllServers) {
  open();
  for (int i = 0; i < 60; ++i) must(encode("picture " + std::to_string(i)));
  for (const auto* name : {"a", "b", "c"}) EXPECT_GT(state(name).requests, 5U) << name;
}

TEST_F(Fleet, PixelBoundsTravelAndAreInTheKey) {
  open();
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info(), "picture", "", 6272, 12544);
  const RemoteFeature got = must(fleet->encode(key, {&file, 1}, 6272, 12544, "", net.now() + 60s, nullptr));
  EXPECT_EQ(got.feature.meta.preprocess_digest, key.preprocess_digest);
  EXPECT_EQ(net.calls()[0].target, "/v1/features?min_pixels=6272&max_pixels=12544");
  // A key that was made for other bounds than are sent would never be answered.
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 60s, nullptr), Code::kFailedPrecondition,
               sample_info().preprocess_digest.hex());
  EXPECT_EQ(net.calls().size(), 1U);
}

TEST_F(Fleet, FramesTravelAsParts) {
  const std::vector<std::span<const std::byte>> frames = {bytes_of("one"), bytes_of("two")};
  const VisionInfo info = sample_info();
  const FeatureKey key = feature_key("", info.vision_digest, info.preprocess_digest, frames);
  each([&](FakeNet::Server& server) {
    server.features = [&](const ClientCall&) { return feature_answer(file_of(feature_of(key))); };
  });
  open();
  EXPECT_EQ(must(fleet->encode(key, frames, {}, {}, "", net.now() + 60s, nullptr)).feature.meta.id, key.id);
  EXPECT_EQ(net.calls()[0].body, join_frames(key.id, frames));
  EXPECT_EQ(net.calls()[0].headers.find("content-type"), "multipart/form-data; boundary=" + key.id.hex());
}

TEST_F(Fleet, AFailureGoesToTheNextOfTheOrder) {
  open();
  const auto names = order();
  net[names[0]].up = false;
  net[names[1]].features = [](const ClientCall&) { return error_answer(500, "broken"); };
  EXPECT_EQ(must(encode()).server, "http://" + names[2] + ":9001");
  EXPECT_EQ(asked(), (std::vector<std::string>{names[1], names[2]}));
  EXPECT_EQ(asked("/v1/info"), names);
  EXPECT_EQ(state(names[0]).consecutive_failures, 1);
  EXPECT_EQ(state(names[1]).failures, 1U);
  EXPECT_EQ(state(names[1]).last_error, "HTTP 500: broken");
  EXPECT_EQ(state(names[2]).failures, 0U);
  EXPECT_TRUE(logged("vision server http://" + names[1] + ":9001: HTTP 500: broken"));
}

TEST_F(Fleet, FailuresInARowEject) {
  open();
  const auto names = order();
  net[names[0]].features = [](const ClientCall&) { return error_answer(502); };
  int failures = 0;
  for (int i = 0; failures < 3; ++i) {
    const std::string picture = "picture " + std::to_string(i);
    if (order(picture)[0] != names[0]) continue;
    EXPECT_EQ(state(names[0]).condition, Condition::kHealthy);
    must(encode(picture));
    ++failures;
  }
  EXPECT_EQ(state(names[0]).condition, Condition::kEjected);
  net.forget();
  must(encode());
  EXPECT_EQ(asked(), std::vector{names[1]});
  EXPECT_TRUE(logged("not asked again until its probes are good"));
}

TEST_F(Fleet, APictureThatNoServerCanTakeEjectsNone) {
  open();
  const auto names = order();
  each([](FakeNet::Server& server) { server.features = [](const ClientCall&) { return error_answer(500); }; });
  for (int i = 0; i < 10; ++i) expect_error(encode(), Code::kUnavailable, "no vision server can answer now");
  EXPECT_EQ(asked().size(), 30U) << "another server may be sound";
  for (const std::string& name : names) EXPECT_EQ(state(name).condition, Condition::kHealthy);
}

TEST_F(Fleet, AnEjectedServerComesBackByItsProbes) {
  open();
  const auto names = order();
  net[names[0]].up = false;
  for (int i = 0; i < 3; ++i) must(encode());
  ASSERT_EQ(state(names[0]).condition, Condition::kEjected);
  net[names[0]].up = true;
  fleet->probe_due();
  EXPECT_EQ(state(names[0]).condition, Condition::kEjected) << "one good probe is not two";
  fleet->probe_due();
  EXPECT_EQ(state(names[0]).probes, 1U) << "the next is not due yet";
  net.pass(2300ms);
  fleet->probe_due();
  EXPECT_EQ(state(names[0]).condition, Condition::kHealthy);
  EXPECT_TRUE(logged("healthy again"));
  net.forget();
  must(encode());
  EXPECT_EQ(asked(), std::vector{names[0]});
}

TEST_F(Fleet, ProbesEjectAServerThatNobodyAsked) {
  open();
  net["a"].ready = 503;
  for (int i = 0; i < 3; ++i) {
    fleet->probe_due();
    net.pass(2300ms);
  }
  EXPECT_EQ(state("a").condition, Condition::kEjected);
  EXPECT_EQ(state("a").failed_probes, 3U);
  EXPECT_EQ(state("b").condition, Condition::kHealthy);
  for (int i = 0; i < 20; ++i) must(encode(std::to_string(i)));
  for (const SeenCall& call : net.calls()) EXPECT_NE(call.server, "a");
}

TEST_F(Fleet, ProbesReadTheInfoBeforeAnybodyAsks) {
  open();
  const Deadline next = fleet->probe_due();
  EXPECT_GE(next, net.now() + 1800ms);
  EXPECT_LE(next, net.now() + 2200ms);
  EXPECT_EQ(asked("/v1/info"), (std::vector<std::string>{"a", "b", "c"}));
  must(encode());
  must(fleet->info(net.now() + 1s, nullptr));
  EXPECT_EQ(asked("/v1/info").size(), 3U);
  // It is not read at every probe, but it is read again.
  net.pass(2300ms);
  fleet->probe_due();
  EXPECT_EQ(asked("/v1/info").size(), 3U);
  net.pass(10s);
  fleet->probe_due();
  EXPECT_EQ(asked("/v1/info").size(), 6U);
}

TEST_F(Fleet, OverloadedIsSkippedUntilItsRetryAfter) {
  open();
  const auto names = order();
  bool busy = true;
  net[names[0]].features = [&](const ClientCall& call) -> Result<HttpResponse> {
    if (busy) return busy_answer(503, "5");
    return feature_answer(file_of(feature_of(key_of(sample_info(), call.body))));
  };
  must(encode());
  EXPECT_EQ(asked(), (std::vector<std::string>{names[0], names[1]}));
  EXPECT_EQ(state(names[0]).condition, Condition::kOverloaded);
  EXPECT_EQ(state(names[0]).failures, 0U);
  net.forget();
  net.pass(4999ms);
  must(encode());
  EXPECT_EQ(asked(), std::vector{names[1]});
  busy = false;
  net.forget();
  net.pass(1ms);
  must(encode());
  EXPECT_EQ(asked(), std::vector{names[0]});
}

TEST_F(Fleet, OverloadedNeverEjects) {
  open();
  each([](FakeNet::Server& server) { server.features = [](const ClientCall&) { return busy_answer(429, "1"); }; });
  for (int i = 0; i < 10; ++i) {
    expect_error(encode(), Code::kUnavailable, "of 3, 0 out of service, 3 busy");
    net.pass(1s);
  }
  EXPECT_EQ(asked().size(), 30U);
  for (const ServerState& server : fleet->servers()) EXPECT_EQ(server.condition, Condition::kHealthy);
  // A Retry-After of a week is believed for half a minute.
  each([](FakeNet::Server& server) { server.features = [](const ClientCall&) { return busy_answer(503, "604800"); }; });
  expect_error(encode(), Code::kUnavailable, "3 busy");
  net.pass(29'999ms);
  EXPECT_EQ(state("a").condition, Condition::kOverloaded);
  net.pass(1ms);
  EXPECT_EQ(state("a").condition, Condition::kHealthy);
}

TEST_F(Fleet, AllDown) {
  each([](FakeNet::Server& server) { server.up = false; });
  open();
  expect_error(encode(), Code::kUnavailable, "of 3, 3 out of service, 0 busy");
  expect_error(fleet->info(net.now() + 1s, nullptr), Code::kUnavailable, "3 out of service");
  expect_error(get(key_of(sample_info(), "picture").id), Code::kUnavailable, "3 out of service");
  // Ejected: nobody is asked any more.
  net.forget();
  expect_error(encode(), Code::kUnavailable, "3 out of service");
  EXPECT_TRUE(net.calls("/").empty());
  expect_error(fleet->remove(key_of(sample_info(), "picture").id, "", net.now() + 1s, nullptr), Code::kUnavailable,
               "0 of 3");
  EXPECT_TRUE(net.calls("/").empty());
}

TEST_F(Fleet, WhatServersSaidIsRememberedWhenTheyAreDown) {
  open();
  const VisionInfo before = must(fleet->info(net.now() + 1s, nullptr));
  EXPECT_EQ(asked("/v1/info"), std::vector<std::string>{"a"}) << "one answer is enough";
  each([](FakeNet::Server& server) { server.up = false; });
  for (int i = 0; i < 3; ++i, net.pass(2300ms)) fleet->probe_due();
  EXPECT_EQ(state("a").condition, Condition::kEjected);
  EXPECT_EQ(must(fleet->info(net.now() + 1s, nullptr)).preprocess_digest, before.preprocess_digest);
}

TEST_F(Fleet, InfoComesFromWhoeverAnswers) {
  net["a"].up = false;
  net["b"].about = [](const ClientCall&) { return HttpResponse::json(200, "{}"); };
  open();
  EXPECT_EQ(must(fleet->info(net.now() + 1s, nullptr)).vision_digest, sample_info().vision_digest);
  EXPECT_EQ(asked("/v1/info"), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(state("b").last_error, "/v1/info: field 'object': is missing, expected a string");
}

TEST_F(Fleet, GetLooksEverywhere) {
  open();
  const FeatureKey key = key_of(sample_info(), "picture");
  expect_error(get(key.id), Code::kNotFound, "no vision server has this feature");
  EXPECT_EQ(asked(), order());
  net[order()[2]].kept[key.id.hex()] = file_of(feature_of(key));
  const RemoteFeature got = must(get(key.id));
  EXPECT_EQ(got.server, "http://" + order()[2] + ":9001");
  EXPECT_EQ(got.source, "disk");
  EXPECT_EQ(got.feature.meta.id, key.id);
  EXPECT_EQ(net.calls().back().method, "GET");
  EXPECT_EQ(net.calls().back().target, "/v1/features/" + key.id.hex());
  for (const ServerState& server : fleet->servers()) EXPECT_EQ(server.failures, 0U);
  // Who might have it cannot be asked: that is not the same as nobody having it.
  net[order()[2]].up = false;
  expect_error(get(key.id), Code::kUnavailable, "of 3, 1 out of service, 0 busy, 2 without this feature");
}

TEST_F(Fleet, RemoveAsksAllThatAreNotEjected) {
  open();
  const FeatureKey key = key_of(sample_info(), "picture");
  const auto remove = [&] { return fleet->remove(key.id, "acme", net.now() + 1s, nullptr); };
  expect_error(remove(), Code::kNotFound, "no vision server has this feature");
  for (const auto* name : {"a", "c"}) net[name].kept[key.id.hex()] = file_of(feature_of(key));
  net.forget();
  EXPECT_TRUE(remove());
  EXPECT_EQ(asked(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(net.calls()[0].method, "DELETE");
  EXPECT_EQ(net.calls()[0].headers.find("X-Chiasm-Tenant"), "acme");
  EXPECT_TRUE(net["a"].kept.empty() && net["c"].kept.empty());
  // One that fails is told of; once it is ejected the others are enough.
  net["a"].kept[key.id.hex()] = file_of(feature_of(key));
  net["b"].up = false;
  expect_error(remove(), Code::kUnavailable, "removed from 2 of 3 vision servers");
  EXPECT_TRUE(net["a"].kept.empty());
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(remove());
  ASSERT_EQ(state("b").condition, Condition::kEjected);
  net["a"].kept[key.id.hex()] = file_of(feature_of(key));
  EXPECT_TRUE(remove());
  EXPECT_TRUE(logged("http://b:9001: ejected: feature " + key.id.hex() + " was not removed from it"));
}

TEST_F(Fleet, LogLinesAreOneLineEach) {
  open();
  net[order()[0]].features = [](const ClientCall&) -> Result<HttpResponse> {
    return fail(Code::kUnavailable, "evil\nvision server x: healthy again");
  };
  must(encode());
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].find('\n'), std::string::npos);
  EXPECT_EQ(state(order()[0]).last_error.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace chiasm
