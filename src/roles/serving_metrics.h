// What is measured of answers, under our names and under vLLM's, so that dashboards made for it work.
//
// Thread contract: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/metrics.h"
#include "roles/eye.h"
#include "roles/language_side.h"

namespace chiasm {

// For EngineOptions::on_step: what steps take and the pauses before them, as histograms and a debug line each. Both
// must outlive the engine.
std::function<void(const StepReport&)> step_observer(Metrics& metrics, Log& log);

class ServingMetrics {
 public:
  // Registers what is read from the engine and the eye at each scrape; both must outlive `metrics`' last text().
  ServingMetrics(Metrics& metrics, const std::string& model, const LanguageSide& side, const Eye& eye);

  void answered(const Completion& completion, double e2e_seconds);
  void failed(std::string_view reason);
  void looked(std::string_view source, double seconds, std::int64_t tokens);

  std::uint64_t finished_total() const { return finished_; }
  std::uint64_t failed_total() const { return failed_; }

 private:
  struct Observed {
    const Completion* completion;
    double e2e_seconds;
  };
  Counter& success(const std::string& reason);
  void observe(const std::string& name, const std::string& help, const std::vector<double>& buckets,
               std::span<const double> values);
  void observe_all(std::span<const Observed> answers);

  Metrics& metrics_;
  const MetricLabels model_;
  std::atomic<std::uint64_t> finished_ = 0, failed_ = 0;
};

}  // namespace chiasm
