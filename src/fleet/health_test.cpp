#include "fleet/health.h"

#include <gtest/gtest.h>

namespace chiasm {
namespace {

using namespace std::chrono_literals;
using Condition = ServerCondition;

class Health : public testing::Test {
 public:
  static HealthOptions plain() {
    HealthOptions options;
    options.jitter = 0;
    return options;
  }
  Condition condition() const { return health.condition(now); }
  std::chrono::milliseconds until_probe() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(health.next_probe() - now);
  }
  void eject() {
    for (int i = 0; i < 3; ++i) health.request_failed();
    ASSERT_EQ(condition(), Condition::kEjected);
  }

  Deadline now{1h};
  ServerHealth health{plain(), 1, now};
};

TEST_F(Health, StartsHealthyWithAProbeDue) {
  EXPECT_EQ(condition(), Condition::kHealthy);
  EXPECT_EQ(until_probe(), 0ms);
  EXPECT_EQ(health.consecutive_failures(), 0);
}

TEST_F(Health, FailedRequestsInARowEject) {
  EXPECT_FALSE(health.request_failed());
  EXPECT_FALSE(health.request_failed());
  EXPECT_EQ(condition(), Condition::kHealthy);
  EXPECT_TRUE(health.request_failed());
  EXPECT_EQ(condition(), Condition::kEjected);
  EXPECT_FALSE(health.request_failed()) << "it was ejected before";
  EXPECT_EQ(health.consecutive_failures(), 4);
}

TEST_F(Health, ASuccessBetweenStartsTheCountAgain) {
  for (int i = 0; i < 10; ++i) {
    health.request_failed();
    health.request_failed();
    health.request_succeeded();
  }
  EXPECT_EQ(condition(), Condition::kHealthy);
  EXPECT_EQ(health.consecutive_failures(), 0);
}

TEST_F(Health, OnePictureCountsOnceUntilASuccess) {
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(health.request_failed(7));
  EXPECT_EQ(health.consecutive_failures(), 1);
  EXPECT_FALSE(health.request_failed(8));
  EXPECT_FALSE(health.request_failed(7));
  health.request_succeeded();
  EXPECT_FALSE(health.request_failed(7));
  EXPECT_FALSE(health.request_failed());
  EXPECT_TRUE(health.request_failed(8));
}

TEST_F(Health, GoodProbesDoNotHideFailingRequests) {
  health.request_failed();
  health.probe_succeeded(now);
  health.request_failed();
  health.probe_succeeded(now);
  EXPECT_TRUE(health.request_failed());
}

TEST_F(Health, FailedProbesInARowEject) {
  EXPECT_FALSE(health.probe_failed(now));
  EXPECT_FALSE(health.probe_failed(now));
  health.probe_succeeded(now);
  EXPECT_FALSE(health.probe_failed(now));
  EXPECT_FALSE(health.probe_failed(now));
  EXPECT_EQ(condition(), Condition::kHealthy);
  EXPECT_TRUE(health.probe_failed(now));
  EXPECT_EQ(condition(), Condition::kEjected);
}

TEST_F(Health, ProbesOfAnEjectedServerBackOff) {
  std::vector<std::int64_t> waits;
  for (int i = 0; i < 9; ++i) {
    health.probe_failed(now);
    waits.push_back(until_probe().count());
  }
  EXPECT_EQ(waits, (std::vector<std::int64_t>{2000, 2000, 2000, 4000, 8000, 10000, 10000, 10000, 10000}));
  health.probe_succeeded(now);
  EXPECT_EQ(until_probe(), 2s) << "the second good probe is not waited for long";
  health.probe_failed(now);
  EXPECT_EQ(until_probe(), 4s);
}

TEST_F(Health, GoodProbesInARowBringItBack) {
  eject();
  EXPECT_FALSE(health.probe_succeeded(now));
  health.probe_failed(now);
  EXPECT_FALSE(health.probe_succeeded(now));
  EXPECT_EQ(condition(), Condition::kEjected);
  EXPECT_TRUE(health.probe_succeeded(now));
  EXPECT_EQ(condition(), Condition::kHealthy);
}

TEST_F(Health, OneFailureEjectsItAgainUntilARequestSucceeded) {
  eject();
  health.probe_succeeded(now);
  health.probe_succeeded(now);
  ASSERT_EQ(condition(), Condition::kHealthy);
  EXPECT_TRUE(health.request_failed());
  health.probe_succeeded(now);
  health.probe_succeeded(now);
  health.request_succeeded();
  EXPECT_FALSE(health.request_failed());
  EXPECT_EQ(condition(), Condition::kHealthy);
}

TEST_F(Health, ALateSuccessDoesNotBringItBack) {
  eject();
  health.request_succeeded();
  EXPECT_EQ(condition(), Condition::kEjected);
}

TEST_F(Health, OverloadedIsSkippedForItsTimeAndNotEjected) {
  EXPECT_TRUE(health.overloaded(now, 5s));
  EXPECT_FALSE(health.overloaded(now, 1s)) << "it is skipped already";
  EXPECT_EQ(condition(), Condition::kOverloaded);
  EXPECT_EQ(health.consecutive_failures(), 0);
  now += 4999ms;
  EXPECT_EQ(condition(), Condition::kOverloaded);
  now += 1ms;
  EXPECT_EQ(condition(), Condition::kHealthy);
  for (int i = 0; i < 100; ++i) health.overloaded(now, 0s);
  EXPECT_EQ(condition(), Condition::kHealthy);
}

TEST_F(Health, RetryAfterIsBoundedAndHasADefault) {
  health.overloaded(now, std::nullopt);
  now += 999ms;
  EXPECT_EQ(condition(), Condition::kOverloaded);
  now += 1ms;
  EXPECT_EQ(condition(), Condition::kHealthy);
  health.overloaded(now, 24h * 365);
  now += 29'999ms;
  EXPECT_EQ(condition(), Condition::kOverloaded);
  now += 1ms;
  EXPECT_EQ(condition(), Condition::kHealthy);
  health.overloaded(now, -5s);
  EXPECT_EQ(condition(), Condition::kHealthy);
}

TEST_F(Health, EjectedComesBeforeMismatchBeforeOverloaded) {
  health.overloaded(now, 5s);
  EXPECT_TRUE(health.set_mismatch(true));
  EXPECT_FALSE(health.set_mismatch(true));
  EXPECT_EQ(condition(), Condition::kMismatch);
  eject();
  EXPECT_TRUE(health.set_mismatch(false));
  health.probe_succeeded(now);
  health.probe_succeeded(now);
  EXPECT_EQ(condition(), Condition::kOverloaded);
}

TEST_F(Health, JitterStaysInItsBounds) {
  HealthOptions options;
  options.jitter = 0.25;
  ServerHealth jittered(options, 7, now);
  Deadline::duration low = 1h, high = 0s;
  for (int i = 0; i < 1000; ++i) {
    jittered.probe_succeeded(now);
    low = std::min(low, jittered.next_probe() - now);
    high = std::max(high, jittered.next_probe() - now);
  }
  EXPECT_GE(low, 1500ms);
  EXPECT_LT(low, 1550ms);
  EXPECT_LE(high, 2500ms);
  EXPECT_GT(high, 2450ms);
}

TEST(ConditionNames, AreWords) {
  EXPECT_EQ(condition_name(Condition::kHealthy), "healthy");
  EXPECT_EQ(condition_name(Condition::kOverloaded), "overloaded");
  EXPECT_EQ(condition_name(Condition::kEjected), "ejected");
  EXPECT_EQ(condition_name(Condition::kMismatch), "mismatch");
}

}  // namespace
}  // namespace chiasm
