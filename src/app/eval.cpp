// chiasm eval: replays the questions of the evaluation pictures and counts exact answers.
#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "app/console.h"
#include "app/eval_data.h"
#include "app/options.h"
#include "app/pictures.h"
#include "app/vision_options.h"
#include "base/stopwatch.h"
#include "roles/language_side.h"

namespace chiasm {
namespace {

constexpr const char* kFooter =
    R"(All questions of a picture are asked in one batch; answers are greedy. An answer counts when it is the true one to the
letter. Where the data names what the reference implementation generated, the token ids are compared with it.
Pictures are looked at anew unless --features names a folder.

DIR holds truth.json: [{image, questions: [{question, answer, kind}], reference?: {question, generated_ids}}], and
perhaps pair.json ({images, questions}) and video.json ({frames, questions}).

Examples:
  chiasm eval
  chiasm eval --wrong                       shows every wrong answer beside the true one
  chiasm eval -m MODEL --data DIR --json)";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  OutputOptions output;
  std::string data;
  bool wrong = false;
  int threads = 0;
};

struct Score {
  std::int64_t exact = 0, of = 0;
  double share() const { return of == 0 ? 0 : static_cast<double>(exact) / static_cast<double>(of); }
};

struct Wrong {
  std::string picture, question, expected, answer;
};

struct Tally {
  std::map<std::string, Score> kinds;
  Score overall, reference;
  std::vector<Wrong> wrong;
  std::int64_t pictures = 0, encoded = 0;
  std::int64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;
  double encode_ms = 0, ask_ms = 0;

  double pictures_per_s() const { return encode_ms > 0 ? 1000 * static_cast<double>(encoded) / encode_ms : 0; }
  double questions_per_s() const { return ask_ms > 0 ? 1000 * static_cast<double>(overall.of) / ask_ms : 0; }
};

std::string names_of(const EvalItem& item) {
  std::string out;
  for (const PictureInput& picture : item.pictures) out += (out.empty() ? "" : " + ") + picture.name();
  return out;
}

void count(const EvalItem& item, const std::vector<Completion>& answers, Tally& tally) {
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const EvalQuestion& question = item.questions[i];
    const Completion& answer = answers[i];
    const bool exact = answer.text == question.answer;
    for (Score* score : {&tally.kinds[question.kind], &tally.overall}) {
      score->exact += exact ? 1 : 0;
      ++score->of;
    }
    if (!exact) tally.wrong.push_back({names_of(item), question.question, question.answer, answer.text});
    if (question.reference_ids) {
      tally.reference.exact += answer.token_ids == *question.reference_ids ? 1 : 0;
      ++tally.reference.of;
    }
    tally.prompt_tokens += answer.prompt_tokens;
    tally.cached_tokens += answer.cached_tokens;
    tally.answer_tokens += static_cast<std::int64_t>(answer.token_ids.size());
  }
}

Status replay(const EvalItem& item, VisionSide& vision, const VisionSideOptions& vision_options, LanguageSide& language,
              Tally& tally) {
  Chat chat;
  ChatMessage user{"user", {}};
  for (const PictureInput& input : item.pictures) {
    ASSIGN_OR_RETURN(const LookedAt picture, look_at(vision, vision_options, input));
    ++tally.pictures;
    tally.encoded += picture.seen.source == Source::kEncoded ? 1 : 0;
    tally.encode_ms += picture.encode_ms();
    user.parts.push_back(input.video ? ChatPart::video() : ChatPart::image());
    (input.video ? chat.videos : chat.images).push_back(picture.seen.feature);
  }
  std::vector<Chat> chats;
  for (const EvalQuestion& question : item.questions) {
    chats.push_back(chat);
    chats.back().messages = {user};
    chats.back().messages.front().parts.push_back(ChatPart::of_text(question.question));
  }
  AnswerOptions options;  // greedy
  options.sampling.repetition_penalty = language.generation_config().repetition_penalty;
  options.max_tokens = 64;
  const Stopwatch watch;
  ASSIGN_OR_RETURN(const std::vector<Completion> answers, language.ask(chats, options));
  tally.ask_ms += watch.ms();
  count(item, answers, tally);
  return {};
}

Result<Tally> replay_all(const std::vector<EvalItem>& items, const std::filesystem::path& model, const Options& options,
                         Console& console) {
  PictureOptions pictures = options.pictures;
  if (!pictures.features) pictures.features = "none";
  ThreadPool threads(options.threads);
  ASSIGN_OR_RETURN(const VisionSideOptions side_options, vision_options(model, options.model, pictures, console));
  console.progress("reading the configuration and the vision digest");
  ASSIGN_OR_RETURN(const std::unique_ptr<VisionSide> vision, VisionSide::open(side_options, threads));
  LanguageSideOptions language_options;
  language_options.model = model;
  language_options.device = options.model.device;
  language_options.precision = options.model.language();
  language_options.vision_precision = options.model.vision();
  ASSIGN_OR_RETURN(language_options.weights, weights_folder(options.model));
  language_options.on_warning = [&console](std::string_view message) { console.warn(message); };
  language_options.on_load = progress_of_loading(console, "the language model");
  ASSIGN_OR_RETURN(const std::unique_ptr<LanguageSide> language, LanguageSide::open(language_options, threads));
  RETURN_IF_ERROR(language->load());
  Tally out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    console.progress(fmt::format("{} ({}/{}): {} of {} right so far", names_of(items[i]), i + 1, items.size(),
                                 out.overall.exact, out.overall.of));
    RETURN_IF_ERROR(replay(items[i], *vision, side_options, *language, out));
  }
  return out;
}

nlohmann::ordered_json to_json(const Score& score) {
  return {{"exact", score.exact}, {"of", score.of}, {"share", score.share()}};
}

void print_json(Console& console, const std::filesystem::path& model, const Tally& tally) {
  nlohmann::ordered_json out;
  out["model"] = model.string();
  for (const auto& [kind, score] : tally.kinds) out["kinds"][kind] = to_json(score);
  out["overall"] = to_json(tally.overall);
  out["reference"] = {{"identical", tally.reference.exact}, {"of", tally.reference.of}};
  out["pictures"] = tally.pictures;
  out["encoded"] = tally.encoded;
  out["pictures_per_s"] = rounded_ms(tally.pictures_per_s());
  out["questions_per_s"] = rounded_ms(tally.questions_per_s());
  out["prompt_tokens"] = tally.prompt_tokens;
  out["cached_tokens"] = tally.cached_tokens;
  out["answer_tokens"] = tally.answer_tokens;
  out["wrong"] = nlohmann::ordered_json::array();
  for (const Wrong& wrong : tally.wrong)
    out["wrong"].push_back({{"picture", wrong.picture},
                            {"question", wrong.question},
                            {"expected", wrong.expected},
                            {"answer", wrong.answer}});
  console.line("{}", json_text(out));
}

void print_text(Console& console, const Tally& tally, bool show_wrong) {
  console.line("{:<10} {:>6} {:>6} {:>8}", "kind", "exact", "of", "share");
  const auto row = [&](std::string_view name, const Score& score) {
    console.line("{:<10} {:>6} {:>6} {:>6.1f} %", name, score.exact, score.of, 100 * score.share());
  };
  for (const auto& [kind, score] : tally.kinds) row(kind, score);
  row("overall", tally.overall);
  if (tally.reference.of > 0)
    console.line("token ids identical to the reference implementation's: {} of {} answers", tally.reference.exact,
                 tally.reference.of);
  if (tally.encoded > 0)
    console.line("{} pictures and videos, {} looked at in {:.1f} ms: {:.1f} a second", tally.pictures, tally.encoded,
                 tally.encode_ms, tally.pictures_per_s());
  else
    console.line("{} pictures and videos, all known: the vision encoder did not run", tally.pictures);
  console.line("{} questions answered in {:.1f} ms: {:.1f} a second", tally.overall.of, tally.ask_ms,
               tally.questions_per_s());
  console.line("{} of {} prompt tokens reused, {} tokens generated", tally.cached_tokens, tally.prompt_tokens,
               tally.answer_tokens);
  if (!show_wrong) return;
  for (const Wrong& wrong : tally.wrong)
    console.line("\n{}\nQ  {}\nA  {}\n   expected: {}", wrong.picture, wrong.question, wrong.answer, wrong.expected);
}

int run(const Options& options, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  const Result<std::filesystem::path> model = model_folder(options.model);
  if (!model) return console.fault(model.error());
  const Result<std::vector<EvalItem>> items =
      load_eval(options.data.empty() ? *model / "eval" : std::filesystem::path(options.data));
  if (!items) return console.fault(items.error());
  const Result<Tally> tally = replay_all(*items, *model, options, console);
  if (!tally) return console.fault(tally.error());
  if (options.output.json) {
    print_json(console, *model, *tally);
  } else {
    print_text(console, *tally, options.wrong);
  }
  return kExitSuccess;
}

}  // namespace

Command add_eval(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("eval", "Replay questions with known answers, count the exact ones");
  app->footer(kFooter);
  add_model_option(*app, options->model, Devices::kSeveral);
  add_vision_device_option(*app, options->model);
  app->add_option("--data", options->data, "Evaluation folder (default: MODEL/eval)")->type_name("DIR");
  app->add_flag("--wrong", options->wrong, "Show every wrong answer");
  add_picture_options(*app, options->pictures, "none");
  add_decode_options(*app, options->pictures);
  add_threads_option(*app, options->threads);
  add_output_options(*app, options->output, "One JSON object: kinds, overall, reference, speeds, wrong");
  return {app, [options](Console& console) { return run(*options, console); }};
}

}  // namespace chiasm
