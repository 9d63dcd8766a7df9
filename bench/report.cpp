#include "report.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

namespace chiasm::bench {
namespace {

struct Ceiling {
  double gflops = 0, gbs = 0;
};

Ceiling ceiling_of(const std::vector<Row>& rows, int threads) {
  Ceiling out;
  for (const Row& row : rows) {
    if (row.group != "ceilings" || row.threads != threads) continue;
    out.gflops = std::max(out.gflops, row.gflops());
    out.gbs = std::max(out.gbs, row.gbs());
  }
  return out;
}

std::string number(double value) {
  if (value == 0) return "-";
  if (value >= 1000) return fmt::format("{:.0f}", value);
  if (value >= 10) return fmt::format("{:.1f}", value);
  return fmt::format("{:.3g}", value);
}

}  // namespace

void print_report(const std::vector<Row>& rows) {
  std::string group;
  for (const Row& row : rows) {
    if (row.group != group) {
      group = row.group;
      fmt::print("\n{}\n{:<52} {:>3} {:>10} {:>9} {:>8} {:>10} {:>6}\n", group, "", "thr", "median ms", "GFLOP/s",
                 "GB/s", "floor ms", "share");
    }
    fmt::print("{:<52} {:>3}", row.name, row.threads);
    if (!row.ms.empty()) {
      const Ceiling ceiling = ceiling_of(rows, row.threads);
      const double floor = std::max(ceiling.gflops > 0 ? row.gflop / ceiling.gflops * 1e3 : 0,
                                    ceiling.gbs > 0 ? row.gbytes / ceiling.gbs * 1e3 : 0);
      fmt::print(" {:>10} {:>9} {:>8} {:>10} {:>6}", number(row.median_ms()), number(row.gflops()), number(row.gbs()),
                 number(floor), floor > 0 ? fmt::format("{:.0f} %", 100 * floor / row.median_ms()) : "-");
      if (row.units > 0) fmt::print("  {} {}", number(row.units / row.median_ms() * 1e3), row.unit);
    }
    for (const auto& [name, value] : row.figures) fmt::print("  {}: {}", name, value == 0 ? "0" : number(value));
    fmt::print("{}{}\n", row.note.empty() ? "" : "  ", row.note);
  }
}

}  // namespace chiasm::bench
