// Metrics in the Prometheus text format: what the program counts itself, and what it reads from elsewhere when asked.
//
// Names follow Prometheus: counters end in _total, seconds and bytes are base units. Thread contract: everything may be
// called from any thread; references stay valid as long as the Metrics.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace chiasm {

using MetricLabels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void add(double amount = 1) = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void observe(double value) = 0;
};

// Takes what is kept elsewhere (a tier's counters, the engine's status) at the moment of a scrape.
class MetricReader {
 public:
  virtual ~MetricReader() = default;
  virtual void counter(std::string_view name, std::string_view help, double total, const MetricLabels& labels = {}) = 0;
  virtual void gauge(std::string_view name, std::string_view help, double value, const MetricLabels& labels = {}) = 0;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // The one of this name and these labels, made at the first call.
  Counter& counter(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  // `buckets`: rising upper bounds; those of the first call for a name hold.
  Histogram& histogram(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                       const MetricLabels& labels = {});

  void on_read(std::function<void(MetricReader&)> read);

  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 1 ms to 10 minutes, and 1 to 65536: for histograms of durations in seconds and of token counts.
const std::vector<double>& duration_buckets();
const std::vector<double>& token_buckets();

}  // namespace chiasm
