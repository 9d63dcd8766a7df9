#include "base/metrics.h"

#include <mutex>
#include <utility>

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace chiasm {
namespace {

class CountedBy : public Counter {
 public:
  explicit CountedBy(prometheus::Counter& counter) : counter_(counter) {}
  void add(double amount) override { counter_.Increment(amount); }

 private:
  prometheus::Counter& counter_;
};

class ObservedBy : public Histogram {
 public:
  explicit ObservedBy(prometheus::Histogram& histogram) : histogram_(histogram) {}
  void observe(double value) override { histogram_.Observe(value); }

 private:
  prometheus::Histogram& histogram_;
};

// Gathers what readers say into families as the serializer wants them.
class Families : public MetricReader {
 public:
  void counter(std::string_view name, std::string_view help, double total, const MetricLabels& labels) override {
    prometheus::ClientMetric metric = labelled(labels);
    metric.counter.value = total;
    add(name, help, prometheus::MetricType::Counter, std::move(metric));
  }
  void gauge(std::string_view name, std::string_view help, double value, const MetricLabels& labels) override {
    prometheus::ClientMetric metric = labelled(labels);
    metric.gauge.value = value;
    add(name, help, prometheus::MetricType::Gauge, std::move(metric));
  }
  std::vector<prometheus::MetricFamily> take() { return std::move(families_); }

 private:
  static prometheus::ClientMetric labelled(const MetricLabels& labels) {
    prometheus::ClientMetric out;
    for (const auto& [name, value] : labels) out.label.push_back({name, value});
    return out;
  }
  void add(std::string_view name, std::string_view help, prometheus::MetricType type, prometheus::ClientMetric metric) {
    for (prometheus::MetricFamily& family : families_) {
      if (family.name != name) continue;
      family.metric.push_back(std::move(metric));
      return;
    }
    families_.push_back({std::string(name), std::string(help), type, {std::move(metric)}});
  }

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace

struct Metrics::State {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  mutable std::mutex mutex;
  std::map<std::pair<std::string, MetricLabels>, std::unique_ptr<CountedBy>> counters;
  std::map<std::pair<std::string, MetricLabels>, std::unique_ptr<ObservedBy>> histograms;
  std::vector<std::function<void(MetricReader&)>> readers;
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::counter(const std::string& name, const std::string& help, const MetricLabels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& out = state_->counters[{name, labels}];
  if (out == nullptr)
    out = std::make_unique<CountedBy>(
        prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry).Add(labels));
  return *out;
}

Histogram& Metrics::histogram(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                              const MetricLabels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& out = state_->histograms[{name, labels}];
  if (out == nullptr)
    out = std::make_unique<ObservedBy>(
        prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry).Add(labels, buckets));
  return *out;
}

void Metrics::on_read(std::function<void(MetricReader&)> read) {
  const std::lock_guard lock(state_->mutex);
  state_->readers.push_back(std::move(read));
}

std::string Metrics::text() const {
  std::vector<prometheus::MetricFamily> all = state_->registry.Collect();
  Families families;
  std::vector<std::function<void(MetricReader&)>> readers;
  {
    const std::lock_guard lock(state_->mutex);
    readers = state_->readers;
  }
  for (const auto& read : readers) read(families);
  for (prometheus::MetricFamily& family : families.take()) all.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(all);
}

const std::vector<double>& duration_buckets() {
  static const std::vector<double> kBuckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                            2.5,   5,      10,    20,   40,    80,   160, 300,  600};
  return kBuckets;
}

const std::vector<double>& token_buckets() {
  static const std::vector<double> kBuckets = [] {
    std::vector<double> out;
    for (double bound = 1; bound <= 65536; bound *= 2) out.push_back(bound);
    return out;
  }();
  return kBuckets;
}

}  // namespace chiasm
