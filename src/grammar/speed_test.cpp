// Prints how long things take; run with --gtest_also_run_disabled_tests --gtest_filter='*Speed*'.
#include <algorithm>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/test_support.h"
#include "grammar/sequence_state.h"
#include "grammar/test_schemas.h"
#include "grammar/token_constraint.h"

namespace chiasm {
namespace {

// Of the processor, not of the clock: other programs do not count.
class Stopwatch {
 public:
  double ms() const { return static_cast<double>(std::clock() - start_) * 1e3 / CLOCKS_PER_SEC; }

 private:
  std::clock_t start_ = std::clock();
};

void print_stages(const std::string& name, const std::filesystem::path& folder) {
  const Tokenizer tokenizer = must(Tokenizer::load(folder));
  Stopwatch watch;
  const auto vocabulary = ConstraintVocabulary::build(tokenizer, tokenizer.size());
  std::printf("%s: %lld tokens, vocabulary %.1f ms\n", name.c_str(), static_cast<long long>(tokenizer.size()),
              watch.ms());
  std::vector<double> compile, mask_times, accept_times;
  std::vector<std::pair<double, std::string>> by_schema;
  double slowest = 0;
  std::string slowest_schema;
  TokenMask mask(tokenizer.size());
  for (const std::string& schema : test::schemas()) {
    Stopwatch compiling;
    const auto constraint = must(json_schema_constraint(vocabulary, schema));
    compile.push_back(compiling.ms());
    if (compile.back() > slowest) {
      slowest = compile.back();
      slowest_schema = schema;
    }
    std::mt19937_64 random(1);
    const auto state = constraint->start();
    const std::size_t before = mask_times.size();
    for (std::int64_t remaining = 200; remaining > 0; --remaining) {
      Stopwatch masking;
      state->mask(remaining, mask);
      mask_times.push_back(masking.ms());
      std::vector<std::int32_t> ids;
      for (std::int32_t id = 0; id < mask.size(); ++id)
        if (mask.test(id)) ids.push_back(id);
      if (ids.empty()) break;
      Stopwatch accepting;
      state->accept(ids[random() % ids.size()]);
      accept_times.push_back(accepting.ms());
    }
    double sum = 0;
    for (std::size_t i = before; i < mask_times.size(); ++i) sum += mask_times[i];
    by_schema.emplace_back(sum / static_cast<double>(mask_times.size() - before), schema);
  }
  for (auto& [what, times] :
       {std::pair{"compile", &compile}, std::pair{"mask", &mask_times}, std::pair{"accept", &accept_times}}) {
    std::sort(times->begin(), times->end());
    double sum = 0;
    for (const double time : *times) sum += time;
    std::printf("  %-8s %6zu times: mean %.3f ms, median %.3f, 99%% %.3f, most %.3f\n", what, times->size(),
                sum / static_cast<double>(times->size()), (*times)[times->size() / 2],
                (*times)[times->size() * 99 / 100], times->back());
  }
  std::sort(by_schema.rbegin(), by_schema.rend());
  by_schema.resize(12);
  for (const auto& [time, what] : by_schema) std::printf("  %7.3f ms a mask: %.100s\n", time, what.c_str());
  std::printf("  slowest to compile: %s\n", slowest_schema.c_str());
}

TEST(TokenConstraintSpeed, DISABLED_Print) {
  print_stages("toytown", toytown_dir());
  if (std::filesystem::exists(shared_dir() / "qwen2-tokenizer" / "tokenizer.json"))
    print_stages("qwen2", shared_dir() / "qwen2-tokenizer");
}

}  // namespace
}  // namespace chiasm
