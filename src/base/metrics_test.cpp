#include "base/metrics.h"

#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, CountersAndHistogramsInTheTextFormat) {
  Metrics metrics;
  metrics.counter("chiasm_pictures_total", "pictures seen", {{"source", "memory"}}).add(2);
  metrics.counter("chiasm_pictures_total", "pictures seen", {{"source", "disk"}}).add();
  metrics.counter("chiasm_pictures_total", "pictures seen", {{"source", "memory"}}).add();
  metrics.histogram("chiasm_encode_seconds", "time", {0.1, 1}).observe(0.5);
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr("# TYPE chiasm_pictures_total counter\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_pictures_total{source=\"memory\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_pictures_total{source=\"disk\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_encode_seconds_bucket{le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_encode_seconds_bucket{le=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_encode_seconds_count 1\n"));
}

TEST(Metrics, ReadsWhatIsKeptElsewhereAtTheScrape) {
  Metrics metrics;
  double running = 1;
  metrics.on_read([&](MetricReader& reader) {
    reader.gauge("chiasm_running", "now", running, {{"lane", "a"}});
    reader.gauge("chiasm_running", "now", running + 1, {{"lane", "b"}});
    reader.counter("chiasm_hits_total", "so far", 7);
  });
  EXPECT_THAT(metrics.text(), HasSubstr("chiasm_running{lane=\"a\"} 1\n"));
  running = 5;
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr("chiasm_running{lane=\"a\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_running{lane=\"b\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("chiasm_hits_total 7\n"));
  // One header a family.
  EXPECT_THAT(text.substr(text.find("# TYPE chiasm_running") + 1), Not(HasSubstr("# TYPE chiasm_running")));
}

TEST(Metrics, LabelValuesAreEscaped) {
  Metrics metrics;
  metrics.counter("a_total", "h", {{"k", "x\"y\\z\n"}}).add();
  EXPECT_THAT(metrics.text(), HasSubstr(R"(a_total{k="x\"y\\z\n"} 1)"));
}

TEST(Metrics, AnyThread) {
  Metrics metrics;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) metrics.counter("n_total", "n").add();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics.text(), HasSubstr("n_total 4000\n"));
}

}  // namespace
}  // namespace chiasm
