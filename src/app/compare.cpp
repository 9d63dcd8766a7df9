// chiasm compare: how far two feature files lie apart, and whether that is within a tolerance.
#include "features/compare.h"

#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/console.h"
#include "app/options.h"
#include "app/pictures.h"
#include "features/feature_file.h"

namespace chiasm {
namespace {

constexpr const char* kFooter =
    R"(Features of one picture differ slightly between devices, libraries and precisions. Without --tolerance, the limit of
relative L2 is 2e-3 plus the rounding of each file's type (f16: 2^-11, bf16: 2^-8); the limit of the cosine of a row
follows from it: one row may drift four times as far as the whole. A is the reference.

Exit code: 0 within the tolerance, 3 beyond it, 1 when the files cannot be compared.

Examples:
  chiasm compare cpu.safetensors gpu.safetensors
  chiasm compare exact.safetensors rounded.safetensors --tolerance 1e-2
  chiasm compare a.safetensors b.safetensors --json | jq .relative_l2)";

struct Options {
  std::string a, b;
  std::optional<double> tolerance, max_abs;
  OutputOptions output;
};

DriftTolerance tolerance_of(const Options& options, const Feature& a, const Feature& b) {
  DriftTolerance out = DriftTolerance::between(a.meta.dtype, b.meta.dtype);
  if (options.tolerance) {
    out.relative_l2 = *options.tolerance;
    out.cosine_min = 1 - std::pow(4 * out.relative_l2, 2) / 2;  // as DriftTolerance::between does
  }
  out.max_abs = options.max_abs.value_or(std::numeric_limits<double>::infinity());
  return out;
}

void print_json(Console& console, const Options& options, const Drift& drift, const DriftTolerance& tolerance,
                const DriftVerdict& verdict, const std::vector<MetaDifference>& metadata) {
  nlohmann::ordered_json out;
  out["a"] = options.a;
  out["b"] = options.b;
  out["rows"] = drift.rows;
  out["width"] = drift.width;
  out["identical"] = drift.identical;
  out["max_abs"] = drift.max_abs;
  out["max_abs_at"] = {drift.max_abs_row, drift.max_abs_column};
  out["relative_l2"] = drift.relative_l2;
  out["cosine_min"] = drift.cosine_min;
  out["cosine_min_row"] = drift.cosine_min_row;
  out["cosine_mean"] = drift.cosine_mean;
  out["cosine"] = drift.cosine;
  out["tolerance"] = {{"relative_l2", tolerance.relative_l2}, {"cosine_min", tolerance.cosine_min}};
  if (options.max_abs) out["tolerance"]["max_abs"] = tolerance.max_abs;
  out["within"] = verdict.within;
  out["reasons"] = verdict.reasons;
  out["metadata_differences"] = nlohmann::ordered_json::array();
  for (const MetaDifference& difference : metadata)
    out["metadata_differences"].push_back({{"field", difference.field}, {"a", difference.a}, {"b", difference.b}});
  console.line("{}", json_text(out));
}

void print_text(Console& console, const Options& options, const Drift& drift, const DriftTolerance& tolerance,
                const DriftVerdict& verdict, const std::vector<MetaDifference>& metadata) {
  console.line("A  {}\nB  {}", options.a, options.b);
  console.line("{} rows of {} values", drift.rows, drift.width);
  for (const MetaDifference& difference : metadata) {
    console.line("{} differs: {} in A, {} in B{}", difference.field, difference.a, difference.b,
                 difference.field == "image_digest"    ? " (these are different pictures)"
                 : difference.field == "vision_digest" ? " (these come from different weights)"
                                                       : "");
  }
  console.line("max abs       {:.3e}  (row {}, column {})", drift.max_abs, drift.max_abs_row, drift.max_abs_column);
  console.line("relative L2   {:.3e}  (tolerance {:.3e})", drift.relative_l2, tolerance.relative_l2);
  console.line("cosine a row  {:.7f} at least (row {}; tolerance {:.7f}), {:.7f} on average", drift.cosine_min,
               drift.cosine_min_row, tolerance.cosine_min, drift.cosine_mean);
  const std::string word =
      verdict.within ? drift.identical ? "identical" : "within the tolerance" : "BEYOND THE TOLERANCE";
  console.line("verdict: {}", console.strong(word));
  for (const std::string& reason : verdict.reasons) console.line("  {}", reason);
}

int run(const Options& options, Console& console) {
  const auto a = load_feature(options.a);
  if (!a) return console.fault(a.error());
  const auto b = load_feature(options.b);
  if (!b) return console.fault(b.error());
  const Result<Drift> drift = drift_of(a->rows.view(), b->rows.view());
  if (!drift)
    return console.fault(
        {drift.error().code, fmt::format("{} and {}: {}", options.a, options.b, drift.error().message)});
  const DriftTolerance tolerance = tolerance_of(options, *a, *b);
  const DriftVerdict verdict = judge(*drift, tolerance);
  (options.output.json ? print_json : print_text)(console, options, *drift, tolerance, verdict,
                                                  differences(a->meta, b->meta));
  return verdict.within ? kExitSuccess : kExitDrift;
}

}  // namespace

Command add_compare(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("compare", "Say how far two feature files lie apart");
  app->footer(kFooter);
  add_word(*app, "a", options->a, "The reference")->type_name("A")->required();
  add_word(*app, "b", options->b, "What is compared with it")->type_name("B")->required();
  const auto not_negative = [](double x) { return x >= 0; };
  expect_number(app->add_option("--tolerance", options->tolerance,
                                "Largest relative L2, |a - b| / |a| (default: by the files' types)"),
                "a number of at least 0", not_negative);
  expect_number(app->add_option("--max-abs", options->max_abs, "Largest difference of one value (default: any)"),
                "a number of at least 0", not_negative);
  add_output_options(*app, options->output, "One JSON object: max_abs, relative_l2, cosine, tolerance, within, ...");
  return {app, [options](Console& console) { return run(*options, console); }};
}

}  // namespace chiasm
