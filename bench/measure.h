// How the benchmark measures: repeated samples, medians, every case in a process of its own so that its peak of
// resident memory is its own.
//
// Leaves printing to report.h. Thread contract: the process that calls in_process must not have started threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/stopwatch.h"

namespace chiasm::bench {

// One measured line. What is 0 or empty does not apply.
struct Row {
  std::string group;  // the table it belongs to
  std::string name;
  int threads = 0;
  std::vector<double> ms;                               // every sample
  double gflop = 0;                                     // arithmetic of one sample (a multiply-add is two)
  double gbytes = 0;                                    // 1e9 bytes that one sample must move at least
  std::string unit;                                     // of `rate`, where neither GFLOP/s nor GB/s is what matters
  double units = 0;                                     // of `unit` in one sample
  std::vector<std::pair<std::string, double>> figures;  // memory in MiB, counts
  std::string note;

  double median_ms() const;
  double gflops() const;  // of the median; 0 without gflop
  double gbs() const;
  double figure(std::string_view name) const;  // 0 when absent
};

double median(std::vector<double> values);

// Milliseconds of each of `samples` calls, after one that does not count when `warm`.
std::vector<double> sample(int samples, bool warm, const std::function<void()>& body);

// Runs bodies in turn, `rounds` times round, so that what else the machine does falls on all alike. Each call of a body
// repeats it until about `min_ms` have passed; a sample is the time of one repetition. A pause before each lets the
// threads of the one before go to sleep.
std::vector<std::vector<double>> alternate(int rounds, double min_ms, const std::vector<std::function<void()>>& bodies);

// Runs `body` in a child process and returns its rows. A child that fails prints why and gives none.
std::vector<Row> in_process(const std::function<std::vector<Row>()>& body);

// MiB of this process.
double peak_resident();
double resident();

std::string cpu_model();  // as /proc/cpuinfo names it

std::string rows_to_json(const std::vector<Row>& rows, const std::string& head);  // head: a JSON object to begin with
std::string now_utc();

}  // namespace chiasm::bench
