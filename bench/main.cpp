// chiasm_bench: stage times, kernels and peak memory beside this machine's measured ceilings. `./dev bench` runs it.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/file.h"
#include "cases.h"
#include "report.h"
#include "yardstick.h"

namespace chiasm::bench {
namespace {

// DIR or DIR@SIDE.
Model model_of(const std::string& text) {
  const std::size_t at = text.rfind('@');
  if (at == std::string::npos) return {text, 0};
  return {text.substr(0, at), std::stoll(text.substr(at + 1))};
}

int run(int argc, char** argv) {
  CLI::App app("Times kernels and stages beside what this machine can do, each case in a process of its own.");
  std::vector<std::string> models{"models/toytown"}, scale_models, only;
  std::string json, commit;
  Settings settings;
  settings.picture = "models/toytown/eval/scene-03.jpg";
  settings.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const std::vector<std::string> groups{"ceilings",  "kernels", "rows",    "vision", "language",
                                        "questions", "patches", "scaling", "errors"};
  app.add_option("--model", models,
                 "checkpoints to time stages with, DIR or DIR@SIDE: pictures get about SIDE x SIDE pixels, in their "
                 "own proportions");
  app.add_option("--scale-model", scale_models,
                 "checkpoints to show time and memory over --patches with; none: no such table");
  app.add_option("--patches", settings.patches, "for --scale-model")->delimiter(',');
  app.add_option("--picture", settings.picture, "the picture to encode")->capture_default_str();
  app.add_option("--only", only,
                 "some of the groups; scaling, which takes minutes, and errors are measured only where they are named")
      ->delimiter(',')
      ->check(CLI::IsMember(groups));
  app.add_option("--threads", settings.threads)->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--device", settings.device, "of errors: cpu or cuda:N")->capture_default_str();
  app.add_option("--precision", settings.precision, "of the stages: exact, int8 or int4")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Precision>{
          {"exact", Precision::kExact}, {"int8", Precision::kInt8}, {"int4", Precision::kInt4}}));
  app.add_option("--samples", settings.samples, "of each time")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--json", json, "also write every sample to this file");
  app.add_option("--commit", commit, "what that file says about the sources; ./dev bench knows it");
  CLI11_PARSE(app, argc, argv);

  const auto wanted = [&](const char* group) {
    return only.empty() || std::find(only.begin(), only.end(), group) != only.end();
  };
  std::vector<Row> rows;
  const auto add = [&](const std::string& what, const auto& measure) {
    fmt::print(stderr, "bench: {}\n", what);
    const std::vector<Row> more = measure();
    rows.insert(rows.end(), more.begin(), more.end());
  };
  const std::string date = now_utc(), cpu = cpu_model();
  fmt::print("{}, {} threads, {}; medians of {} samples unless a line says otherwise\n", cpu, settings.threads, date,
             settings.samples);
  if (!have_yardstick()) fmt::print("built without oneDNN: no yardstick for products\n");
  if (only != std::vector<std::string>{"errors"})  // all others' floors need them
    add("ceilings", [&] { return measure_ceilings(settings); });
  if (wanted("kernels")) add("kernels", [&] { return measure_kernels(settings); });
  if (wanted("rows")) add("row contract", [&] { return measure_row_contract(settings); });
  for (const std::string& model : models) {
    if (wanted("vision")) add("vision, " + model, [&] { return measure_vision(model_of(model), settings); });
    if (wanted("language")) add("language, " + model, [&] { return measure_language(model_of(model), settings); });
    if (wanted("questions")) add("questions, " + model, [&] { return measure_questions(model_of(model), settings); });
  }
  for (const std::string& model : models)
    if (!only.empty() && wanted("errors"))
      add("errors, " + model, [&] { return measure_errors(model_of(model), settings); });
  for (const std::string& model : scale_models)
    if (wanted("patches")) add("patches, " + model, [&] { return measure_patches(model_of(model), settings); });
  for (const std::string& model : scale_models)
    if (!only.empty() && wanted("scaling"))
      add("scaling, " + model, [&] { return measure_scaling(model_of(model), settings); });
  print_report(rows);
  if (!json.empty()) {
    const std::string head = fmt::format(R"({{"commit": "{}", "cpu": "{}", "threads": {}, "date": "{}"}})", commit, cpu,
                                         settings.threads, date);
    const std::string text = rows_to_json(rows, head) + "\n";
    if (const Status written = publish_file(json, {std::as_bytes(std::span(text))}); !written) {
      fmt::print(stderr, "bench: {}\n", written.error().message);
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace chiasm::bench

int main(int argc, char** argv) {
  try {
    return chiasm::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
    return 1;
  }
}
