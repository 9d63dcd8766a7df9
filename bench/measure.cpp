#include "measure.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

namespace chiasm::bench {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Row& row) {
  Json out{{"group", row.group}, {"name", row.name}, {"threads", row.threads}, {"ms", row.ms}};
  if (row.gflop > 0) out["gflop"] = row.gflop;
  if (row.gbytes > 0) out["gbytes"] = row.gbytes;
  if (row.units > 0) out["units"] = row.units, out["unit"] = row.unit;
  for (const auto& [name, value] : row.figures) out["figures"][name] = value;
  if (!row.note.empty()) out["note"] = row.note;
  return out;
}

Row from_json(const Json& json) {
  Row row;
  row.group = json.at("group");
  row.name = json.at("name");
  row.threads = json.at("threads");
  row.ms = json.at("ms").get<std::vector<double>>();
  row.gflop = json.value("gflop", 0.0);
  row.gbytes = json.value("gbytes", 0.0);
  row.units = json.value("units", 0.0);
  row.unit = json.value("unit", "");
  row.note = json.value("note", "");
  if (json.contains("figures"))
    for (const auto& [name, value] : json.at("figures").items()) row.figures.emplace_back(name, value.get<double>());
  return row;
}

double status_field(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind(field + ":", 0) == 0) return std::strtod(line.c_str() + field.size() + 1, nullptr) / 1024;
  return 0;
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double Row::median_ms() const { return median(ms); }
double Row::gflops() const { return gflop > 0 && !ms.empty() ? gflop / median_ms() * 1e3 : 0; }
double Row::gbs() const { return gbytes > 0 && !ms.empty() ? gbytes / median_ms() * 1e3 : 0; }
double Row::figure(std::string_view wanted) const {
  for (const auto& [key, value] : figures)
    if (key == wanted) return value;
  return 0;
}

std::vector<double> sample(int samples, bool warm, const std::function<void()>& body) {
  if (warm) body();
  std::vector<double> out;
  for (int i = 0; i < samples; ++i) {
    const Stopwatch watch;
    body();
    out.push_back(watch.ms());
  }
  return out;
}

std::vector<std::vector<double>> alternate(int rounds, double min_ms,
                                           const std::vector<std::function<void()>>& bodies) {
  std::vector<int> repeats;
  for (const auto& body : bodies) {
    body();  // buffers are made, code is generated
    const double once = sample(1, false, body).front();
    repeats.push_back(std::clamp(static_cast<int>(min_ms / std::max(once, 1e-3)), 1, 100000));
  }
  std::vector<std::vector<double>> out(bodies.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < bodies.size(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const Stopwatch watch;
      for (int r = 0; r < repeats[i]; ++r) bodies[i]();
      out[i].push_back(watch.ms() / repeats[i]);
    }
  }
  return out;
}

std::vector<Row> in_process(const std::function<std::vector<Row>()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) return {};
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    const std::string text = rows_to_json(body(), "{}");
    for (std::size_t done = 0; done < text.size();) {
      const ssize_t n = ::write(ends[1], text.data() + done, text.size() - done);
      if (n <= 0) std::_Exit(1);
      done += static_cast<std::size_t>(n);
    }
    std::_Exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; child > 0 && (n = ::read(ends[0], buffer, sizeof(buffer))) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 1;
  if (child > 0) ::waitpid(child, &status, 0);
  const Json json = Json::parse(text, nullptr, false);
  if (status != 0 || json.is_discarded()) {
    std::fprintf(stderr, "bench: a case did not finish (status %d)\n", status);
    return {};
  }
  std::vector<Row> rows;
  for (const Json& row : json.at("rows")) rows.push_back(from_json(row));
  return rows;
}

double peak_resident() { return status_field("VmHWM"); }
double resident() { return status_field("VmRSS"); }

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string rows_to_json(const std::vector<Row>& rows, const std::string& head) {
  Json out = Json::parse(head);
  out["rows"] = Json::array();
  for (const Row& row : rows) out["rows"].push_back(to_json(row));
  return out.dump(1);
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace chiasm::bench
