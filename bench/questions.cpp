#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "base/thread_pool.h"
#include "cases.h"
#include "conversation.h"
#include "features/disk_tier.h"
#include "work.h"

namespace chiasm::bench {
namespace {

constexpr std::int64_t kNewTokens = 10;

// Of questions that are asked together: from the first submit to the last token.
double milliseconds_of(Conversation& talk, std::vector<GenerationRequest> requests, const std::string& salt,
                       std::vector<Completion>& answers) {
  for (GenerationRequest& request : requests) request.cache_salt = salt;
  const Stopwatch watch;
  answers = must(talk.engine->run(std::move(requests)));
  return watch.ms();
}

std::int64_t computed(const std::vector<Completion>& answers) {
  std::int64_t out = 0;
  for (const Completion& answer : answers) out += answer.prompt_tokens - answer.cached_tokens;
  return out;
}

std::vector<Row> question_rows(const Model& model, const Settings& settings) {
  ThreadPool threads(settings.threads);
  Conversation talk(model, settings.precision, threads);
  const auto row = [&](std::string name) {
    Row out{.group = "questions, " + label(model, settings.precision), .name = std::move(name)};
    out.threads = threads.size();
    return out;
  };
  // As long as each other, unlike from the first word after the picture on.
  const auto questions = [&](std::int64_t count, const std::string& kind) {
    std::vector<GenerationRequest> out;
    for (std::int64_t i = 0; i < count; ++i)
      out.push_back(talk.request(fmt::format("{} {}: how many houses are there?", i, kind), kNewTokens));
    return out;
  };
  Row first = row("question 1, first token"), second = row("question 2, first token");
  Row brief = row("question 2 of few words, first token");
  Row one = row(fmt::format("one question on a known picture, {} tokens", kNewTokens));
  Row eight = row("8 questions together on a known picture");
  Row five = row("5 questions together on a new picture");
  Row alone = row("1 question on a new picture");
  std::vector<Completion> answers;
  for (int i = 0; i <= settings.samples; ++i) {
    const std::string salt = fmt::format("questions {}", i);
    const double alone_ms = milliseconds_of(talk, questions(1, "a"), salt, answers);
    const double first_ms = answers.front().ttft_ms;
    const double one_ms = milliseconds_of(talk, questions(1, "b"), salt, answers);
    const Completion next = answers.front();
    milliseconds_of(talk, {talk.request("how many houses there?", kNewTokens)}, salt, answers);
    const Completion few = answers.front();
    const double eight_ms = milliseconds_of(talk, questions(8, "c"), salt, answers);
    const double five_ms = milliseconds_of(talk, questions(5, "d"), salt + " again", answers);
    if (i == 0) continue;  // the first one wakes the memory of the pool
    alone.ms.push_back(alone_ms), first.ms.push_back(first_ms);
    second.ms.push_back(next.ttft_ms), brief.ms.push_back(few.ttft_ms), one.ms.push_back(one_ms);
    eight.ms.push_back(eight_ms), five.ms.push_back(five_ms);
    for (const auto& [line, answer] : {std::pair{&second, &next}, std::pair{&brief, &few}})
      line->figures = {{"tokens reused", d(answer->cached_tokens)},
                       {"own tokens", d(answer->prompt_tokens - answer->cached_tokens)}};
    five.figures = {{"prompt tokens computed", d(computed(answers))}};
  }
  eight.figures = {{"times one", eight.median_ms() / one.median_ms()}};
  five.figures.emplace_back("times one on a new picture", five.median_ms() / alone.median_ms());
  for (Row* line : {&second, &brief}) {
    const auto own = static_cast<std::int64_t>(line->figure("own tokens"));
    const auto reused = static_cast<std::int64_t>(line->figure("tokens reused"));
    line->gflop = language_gflop(talk.config.text, own, reused);
    line->gbytes = decode_gbytes(talk.config.text, reused);
  }
  return {first, second, brief, one, eight, alone, five};
}

// As after a restart: a tier that has seen nothing finds the file, reads it and checks every byte.
std::vector<Row> disk_rows(const Model& model, const Settings& settings) {
  const ModelConfig config = must(Checkpoint::open(model.dir, Role::kLanguage)).config();
  const std::filesystem::path dir = std::filesystem::temp_directory_path() / fmt::format("chiasm-bench-{}", ::getpid());
  const std::int64_t rows = 256;
  const FeatureKey key{};
  FeatureId id;
  {
    const Feature feature = make_feature(key, {1, 32, 32}, "bench", random_matrix(rows, config.text.hidden_size, 11));
    id = feature.meta.id;
    must(DiskTier({.dir = dir}).put(feature));
  }
  Row row{.group = "questions, " + label(model, settings.precision),
          .name = fmt::format("features of {} rows from disk", rows)};
  row.threads = 1;
  row.gbytes = 4e-9 * d(rows * config.text.hidden_size);
  bool found = true;
  row.ms =
      sample(std::max(9, settings.samples), true, [&] { found = DiskTier({.dir = dir}).get(id) != nullptr && found; });
  if (!found) row.note = "not found";
  std::error_code error;
  std::filesystem::remove_all(dir, error);
  return {row};
}

}  // namespace

std::vector<Row> measure_questions(const Model& model, const Settings& settings) {
  std::vector<Row> rows = in_process([&] { return question_rows(model, settings); });
  for (const Row& row : in_process([&] { return disk_rows(model, settings); })) rows.push_back(row);
  return rows;
}

}  // namespace chiasm::bench
