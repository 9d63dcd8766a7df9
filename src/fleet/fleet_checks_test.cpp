// What is checked before an answer is used, and what callers are told.
#include <limits>
#include <map>

#include <gtest/gtest.h>

#include "fleet/test_fleet.h"
#include "fleet/vision_fleet.h"

namespace chiasm {
namespace {

// A server that takes a request and lets its time pass.
FakeNet::Answer silence(FakeNet& net) {
  return [&net](const ClientCall& call) -> Result<HttpResponse> {
    net.pass(std::chrono::ceil<std::chrono::milliseconds>(call.deadline - net.now()));
    return fail(Code::kDeadlineExceeded, "late");
  };
}

using namespace std::chrono_literals;
using Condition = ServerCondition;

TEST_F(Fleet, TheCallersErrorIsNotRetried) {
  open();
  for (const int status : {400, 413}) {
    net.forget();
    each([&](FakeNet::Server& server) {
      server.features = [=](const ClientCall&) {
        return error_answer(status, "a picture of 9 megapixels is too large");
      };
    });
    const auto got = encode();
    expect_error(got, Code::kInvalidArgument, "a picture of 9 megapixels is too large");
    EXPECT_EQ(asked(), std::vector{order()[0]});
    EXPECT_EQ(state(order()[0]).failures, 0U);
  }
}

TEST_F(Fleet, ABodyBeyondTheServersLimitIsNotSent) {
  each([](FakeNet::Server& server) { server.info.limits.max_body = 6; });
  open();
  expect_error(encode("seven b"), Code::kInvalidArgument, "7 bytes, the vision server takes at most 6");
  EXPECT_TRUE(net.calls().empty());
  EXPECT_TRUE(encode("six by"));
}

TEST_F(Fleet, BadFeaturesAreTheServersFailure) {
  const FeatureKey key = key_of(sample_info(), "picture");
  const std::string good = file_of(feature_of(key));
  const auto edited = [&](const std::function<void(Metadata&, NamedTensor&)>& edit) {
    const auto bytes = rebuild(bytes_of(good), edit);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  std::vector<float> holes = values_of(feature_of(key));
  holes[7] = std::numeric_limits<float>::quiet_NaN();
  std::string flipped = good;
  flipped[flipped.size() - 9] ^= 4;
  for (const auto& [name, body] : std::map<std::string, std::string>{
           {"empty", ""},
           {"truncated", good.substr(0, good.size() - 1)},
           {"truncated header", good.substr(0, 100)},
           {"flipped", flipped},
           {"JSON", R"({"feature_id":"x"})"},
           {"rows against grid", edited([](Metadata& meta, NamedTensor&) { meta["grid_thw"] = "1,4,8"; })},
           {"NaN",
            edited([&](Metadata&, NamedTensor& tensor) { tensor.tensor.bytes = std::as_bytes(std::span(holes)); })},
           {"another dtype named", edited([](Metadata& meta, NamedTensor&) { meta["dtype"] = "BF16"; })},
           {"another picture", file_of(feature_of(key_of(sample_info(), "other")))},
           {"another tenant", file_of(feature_of(key_of(sample_info(), "picture", "other")))},
           {"another preprocessor", file_of(feature_of(key_of(sample_info(), "picture", "", 6272)))},
           {"another width", file_of(feature_of(key, 16))},
           {"less exact than wanted", file_of(feature_of(key), DType::kBF16)},
           {"too large", file_of(feature_of(key)) + std::string(4096, ' ')},
       }) {
    SCOPED_TRACE(name);
    FleetOptions given = options();
    given.dtype = DType::kF32;
    given.max_feature = good.size() + 2048;
    open(std::move(given));
    net[order()[0]].features = [text = body](const ClientCall&) { return feature_answer(text); };
    net.forget();
    const auto got = encode();
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got->server, "http://" + order()[1] + ":9001");
    EXPECT_EQ(state(order()[0]).failures, 1U);
    EXPECT_FALSE(state(order()[0]).last_error.empty());
    // And from everybody: nobody's feature is used.
    each([text = body](FakeNet::Server& server) {
      server.features = [=](const ClientCall&) { return feature_answer(text); };
    });
    expect_error(encode(), Code::kUnavailable, "of 3, 3 out of service");
    each([](FakeNet::Server& server) { server.features = nullptr; });
  }
}

TEST_F(Fleet, HalvesAreReadWhereTheyAreWelcome) {
  const FeatureKey key = key_of(sample_info(), "picture");
  each([&](FakeNet::Server& server) {
    server.features = [&](const ClientCall&) { return feature_answer(file_of(feature_of(key), DType::kBF16), "disk"); };
  });
  open();
  EXPECT_EQ(must(encode()).feature.meta.dtype, DType::kBF16);
  EXPECT_EQ(must(encode()).source, "disk");
}

TEST_F(Fleet, AServerOfAnotherModelIsKeptOut) {
  net["b"].info = sample_info("other");
  open();
  fleet->probe_due();
  EXPECT_EQ(state("b").condition, Condition::kMismatch);
  EXPECT_EQ(state("b").vision_digest, sample_info("other").vision_digest);
  EXPECT_TRUE(logged("http://b:9001: kept out: expected vision_digest " + sample_info().vision_digest.hex() +
                     ", the vision server has " + sample_info("other").vision_digest.hex()));
  EXPECT_EQ(lines.size(), 1U);
  for (int i = 0; i < 20; ++i) must(encode(std::to_string(i)));
  for (const SeenCall& call : net.calls()) EXPECT_NE(call.server, "b");
  net.pass(2300ms);
  fleet->probe_due();
  EXPECT_EQ(lines.size(), 1U) << "said once";
  // Put right, it is taken back at the next probe.
  net["b"].info = sample_info();
  net.pass(2300ms);
  fleet->probe_due();
  EXPECT_EQ(state("b").condition, Condition::kHealthy);
  EXPECT_TRUE(logged("http://b:9001: taken back"));
}

TEST_F(Fleet, WhenAllServeAnotherModelBothDigestsAreNamed) {
  each([](FakeNet::Server& server) { server.info = sample_info("other"); });
  open();
  const std::string ours = sample_info().vision_digest.hex(), theirs = sample_info("other").vision_digest.hex();
  for (int i = 0; i < 2; ++i) {  // when it is found out, and when it is known
    const auto got = encode();
    expect_error(got, Code::kFailedPrecondition, ours);
    expect_error(got, Code::kFailedPrecondition, theirs);
    const auto info = fleet->info(net.now() + 1s, nullptr);
    expect_error(info, Code::kFailedPrecondition, ours);
    expect_error(info, Code::kFailedPrecondition, theirs);
    expect_error(get(key_of(sample_info(), "picture").id), Code::kFailedPrecondition, theirs);
    expect_error(fleet->remove(key_of(sample_info(), "picture").id, "", net.now() + 1s, nullptr),
                 Code::kFailedPrecondition, theirs);
  }
  EXPECT_TRUE(net.calls().empty());
  net["a"].up = false;
  net.pass(2300ms);
  for (int i = 0; i < 3; ++i, net.pass(2300ms)) fleet->probe_due();
  expect_error(encode(), Code::kUnavailable, "of 3, 1 out of service, 0 busy, 2 of another model");
}

TEST_F(Fleet, OtherReasonsToBeKeptOut) {
  net["a"].info.hidden_size = 16;
  net["b"].info.preprocessor.merge_size = 4;
  net["b"].info.preprocess_digest = net["b"].info.preprocessor.digest();
  FleetOptions given = options();
  given.width = 8;
  given.merge = 2;
  open(given);
  fleet->probe_due();
  EXPECT_EQ(state("a").condition, Condition::kMismatch);
  EXPECT_EQ(state("a").last_error, "expected features of width 8, the vision server's have 16");
  EXPECT_EQ(state("b").last_error, "expected merge_size 2, the vision server has 4");
  EXPECT_EQ(state("c").condition, Condition::kHealthy);
  given.preprocess_digest = net["b"].info.preprocess_digest;
  open(given);
  fleet->probe_due();
  EXPECT_EQ(state("c").last_error, "expected preprocess_digest " + given.preprocess_digest->hex() +
                                       ", the vision server has " + sample_info().preprocess_digest.hex());
}

TEST_F(Fleet, AcceptedDigestsServeTheirOwnKeys) {
  net["a"].info = sample_info("older");
  FleetOptions given = options();
  given.accepted_digests = {sample_info("older").vision_digest};
  open(std::move(given));
  fleet->probe_due();
  EXPECT_EQ(state("a").condition, Condition::kHealthy);
  // The expected one makes the keys while a server has it, wherever it stands in the list.
  EXPECT_EQ(must(fleet->info(net.now() + 1s, nullptr)).vision_digest, sample_info().vision_digest);
  for (int i = 0; i < 20; ++i) must(encode(std::to_string(i)));
  for (const SeenCall& call : net.calls()) EXPECT_NE(call.server, "a");
  // A key of the accepted one goes to the server that has it.
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info("older"), "picture");
  EXPECT_EQ(must(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 1s, nullptr)).server, "http://a:9001");
}

TEST_F(Fleet, AServerExchangedUnderOurHandsIsAMismatch) {
  FleetOptions given = options();
  given.servers = {net.urls()[0]};
  open(std::move(given));
  must(encode());
  net["a"].info = sample_info("other");
  const auto got = encode("next");
  expect_error(got, Code::kFailedPrecondition, sample_info().vision_digest.hex());
  expect_error(got, Code::kFailedPrecondition, sample_info("other").vision_digest.hex());
  EXPECT_EQ(state("a").condition, Condition::kMismatch) << "its info was read again";
  EXPECT_EQ(state("a").failures, 0U);
}

TEST_F(Fleet, Status409IsAMismatch) {
  FleetOptions given = options();
  given.servers = {net.urls()[0]};
  open(std::move(given));
  must(encode());
  net["a"].features = [](const ClientCall&) { return error_answer(409, "model_mismatch"); };
  // As long as it claims to be of our model, it is at fault.
  expect_error(encode("next"), Code::kFailedPrecondition, "HTTP 409: model_mismatch");
  EXPECT_EQ(state("a").failures, 1U);
  net["a"].info = sample_info("other");
  const auto got = encode("next");
  expect_error(got, Code::kFailedPrecondition, sample_info().vision_digest.hex());
  expect_error(got, Code::kFailedPrecondition, sample_info("other").vision_digest.hex());
}

TEST_F(Fleet, AServerThatContradictsItselfIsEjected) {
  open();
  const auto names = order();
  net[names[0]].features = [](const ClientCall& call) {
    return feature_answer(file_of(feature_of(key_of(sample_info("other"), call.body))));
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(must(encode()).server, "http://" + names[1] + ":9001");
  EXPECT_EQ(state(names[0]).condition, Condition::kEjected);
}

TEST_F(Fleet, ServersThatResizeDifferentlyAnswerTheirOwnKeysOnly) {
  net["a"].info.preprocessor.max_pixels = 12544;
  net["a"].info.preprocess_digest = net["a"].info.preprocessor.digest();
  open();
  fleet->probe_due();
  EXPECT_TRUE(logged("their features are kept apart"));
  for (int i = 0; i < 20; ++i) must(encode(std::to_string(i)));  // keys of b's and c's settings
  for (const SeenCall& call : net.calls()) EXPECT_NE(call.server, "a");
}

TEST_F(Fleet, AnInfoThatIsNotItsDigestIsNotBelieved) {
  each([](FakeNet::Server& server) { server.info.preprocess_digest = digest_of(bytes_of("else")); });
  open();
  expect_error(fleet->info(net.now() + 1s, nullptr), Code::kUnavailable, "3 out of service");
  expect_error(encode(), Code::kUnavailable, "3 out of service");
  EXPECT_TRUE(net.calls().empty());
}

TEST_F(Fleet, TheDeadlineIsKept) {
  open();
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info(), "picture");
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now(), nullptr), Code::kDeadlineExceeded, "deadline");
  expect_error(fleet->info(net.now(), nullptr), Code::kDeadlineExceeded, "deadline");
  EXPECT_TRUE(net.calls("/").empty());

  // The time of a server that fails slowly is gone for the next.
  const auto names = order();
  net[names[0]].features = [&](const ClientCall&) -> Result<HttpResponse> {
    net.pass(7s);
    return fail(Code::kUnavailable, "connect: reset");
  };
  must(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 10s, nullptr));
  ASSERT_EQ(net.calls().size(), 2U);
  EXPECT_EQ(net.calls()[0].headers.find("x-request-timeout-ms"), "10000");
  EXPECT_EQ(net.calls()[1].headers.find("x-request-timeout-ms"), "3000");
  net.forget();
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 5s, nullptr), Code::kDeadlineExceeded,
               "deadline");
  EXPECT_EQ(asked(), std::vector{names[0]});
}

TEST_F(Fleet, HastyCallersEjectNobody) {
  open();
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info(), "picture");
  const std::string first = order()[0];
  net[first].features = silence(net);
  for (int i = 0; i < 5; ++i)
    expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 1ms, nullptr), Code::kDeadlineExceeded,
                 "deadline");
  net[first].features = [&](const ClientCall&) { return error_answer(504); };
  for (int i = 0; i < 5; ++i) must(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 1s, nullptr));
  EXPECT_EQ(state(first).condition, Condition::kHealthy);
  EXPECT_EQ(state(first).failures, 0U);
}

TEST_F(Fleet, AServerThatIsReadyAndNeverAnswersIsEjected) {
  open();
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info(), "picture");
  const std::string first = order()[0];
  net[first].features = silence(net);
  const auto ask = [&] { return fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 8s, nullptr); };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(state(first).condition, Condition::kHealthy);
    expect_error(ask(), Code::kDeadlineExceeded, "deadline");
  }
  EXPECT_EQ(state(first).condition, Condition::kEjected);
  EXPECT_EQ(must(ask()).server, "http://" + order()[1] + ":9001");
}

TEST_F(Fleet, AServerThatIsBackIsFoundWhenNoOtherIsLeft) {
  open();
  each([](FakeNet::Server& server) { server.up = false; });
  for (int i = 0; i < 3; ++i) expect_error(encode(), Code::kUnavailable, "no vision server can answer now");
  for (const std::string& name : order()) EXPECT_EQ(state(name).condition, Condition::kEjected);
  net[order()[2]].up = true;
  net.pass(600ms);
  EXPECT_EQ(must(encode()).server, "http://" + order()[2] + ":9001");
  EXPECT_EQ(state(order()[2]).condition, Condition::kHealthy);
}

TEST_F(Fleet, AServerThatNeverAnswersIsLeftForTheNext) {
  FleetOptions given = options();
  given.request_timeout = 5s;
  open(std::move(given));
  const auto names = order();
  net[names[0]].features = [&](const ClientCall& call) -> Result<HttpResponse> {
    net.pass(std::chrono::ceil<std::chrono::milliseconds>(call.deadline - net.now()));
    return fail(Code::kDeadlineExceeded, "late");
  };
  const Deadline before = net.now();
  EXPECT_EQ(must(encode()).server, "http://" + names[1] + ":9001");
  EXPECT_EQ(net.now() - before, 5s);
  EXPECT_EQ(state(names[0]).failures, 1U);
  // No deadline at all is none for the server either, but for this.
  const auto file = bytes_of("picture");
  net.forget();
  must(fleet->encode(key_of(sample_info(), "picture"), {&file, 1}, {}, {}, "", kNoDeadline, nullptr));
  EXPECT_EQ(net.calls()[0].headers.find("x-request-timeout-ms"), "5000");
}

TEST_F(Fleet, CancelledAtOnceAndBetweenServers) {
  open();
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info(), "picture");
  CancelFlag cancel = true;
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 1s, &cancel), Code::kCancelled, "cancelled");
  EXPECT_TRUE(net.calls("/").empty());
  cancel = false;
  net[order()[0]].features = [&](const ClientCall&) -> Result<HttpResponse> {
    cancel = true;
    return fail(Code::kUnavailable, "connect: reset");
  };
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 1s, &cancel), Code::kCancelled, "cancelled");
  EXPECT_EQ(asked(), std::vector{order()[0]});
  cancel = false;
  net[order()[0]].features = [&](const ClientCall& call) -> Result<HttpResponse> {
    EXPECT_EQ(call.cancel, &cancel);
    return fail(Code::kCancelled, "cancelled");
  };
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "", net.now() + 1s, &cancel), Code::kCancelled, "cancelled");
  EXPECT_EQ(state(order()[0]).failures, 1U) << "of the reset alone";
}

TEST_F(Fleet, BadArgumentsReachNoServer) {
  open();
  const auto file = bytes_of("picture");
  const FeatureKey key = key_of(sample_info(), "picture");
  expect_error(fleet->encode(key, {}, {}, {}, "", net.now() + 1s, nullptr), Code::kInvalidArgument, "got none");
  expect_error(fleet->encode(key, {&file, 1}, {}, {}, "a\r\nb", net.now() + 1s, nullptr), Code::kInvalidArgument,
               "tenant");
  expect_error(fleet->get(key.id, "a\nb", net.now() + 1s, nullptr), Code::kInvalidArgument, "tenant");
  expect_error(fleet->remove(key.id, "a\nb", net.now() + 1s, nullptr), Code::kInvalidArgument, "tenant");
  EXPECT_TRUE(net.calls("/").empty());
}

TEST_F(Fleet, GetChecksWhatItIsGiven) {
  open();
  const FeatureKey key = key_of(sample_info(), "picture"), foreign = key_of(sample_info("other"), "picture");
  net[order()[0]].kept[key.id.hex()] = file_of(feature_of(key_of(sample_info(), "else")));
  net[order()[1]].kept[key.id.hex()] = file_of(feature_of(key));
  EXPECT_EQ(must(get(key.id)).server, "http://" + order()[1] + ":9001");
  EXPECT_EQ(state(order()[0]).failures, 1U);
  each([&](FakeNet::Server& server) { server.kept[foreign.id.hex()] = file_of(feature_of(foreign)); });
  const auto got = get(foreign.id);
  expect_error(got, Code::kFailedPrecondition, sample_info().vision_digest.hex());
  expect_error(got, Code::kFailedPrecondition, sample_info("other").vision_digest.hex());
}

TEST_F(Fleet, OptionsAreChecked) {
  const auto refused = [&](const std::function<void(FleetOptions&)>& edit) {
    FleetOptions given = options();
    edit(given);
    const auto made = VisionFleet::create(std::move(given), net.client());
    if (made) return std::string("made");
    EXPECT_EQ(made.error().code, Code::kInvalidArgument);
    return made.error().message;
  };
  EXPECT_EQ(refused([](FleetOptions&) {}), "made");
  EXPECT_EQ(refused([](FleetOptions& o) { o.servers.clear(); }), "expected 1 to 64 vision servers, got 0");
  EXPECT_EQ(refused([](FleetOptions& o) { o.servers.resize(65); }), "expected 1 to 64 vision servers, got 65");
  EXPECT_EQ(refused([](FleetOptions& o) { o.servers[2] = o.servers[0]; }),
            "vision server http://a:9001 is listed twice");
  EXPECT_EQ(refused([](FleetOptions& o) { o.servers[0].target = "/x"; }),
            "vision server http://a:9001: expected no path, got '/x'");
  EXPECT_NE(refused([](FleetOptions& o) { o.secret = "a\nb"; }).find("visible ASCII"), std::string::npos);
  EXPECT_NE(refused([](FleetOptions& o) { o.health.eject_after = 0; }), "made");
  EXPECT_NE(refused([](FleetOptions& o) { o.health.probe_interval = 0ms; }), "made");
  EXPECT_NE(refused([](FleetOptions& o) { o.health.jitter = 1; }), "made");
  EXPECT_NE(refused([](FleetOptions& o) { o.request_timeout = 0ms; }), "made");
}

}  // namespace
}  // namespace chiasm
