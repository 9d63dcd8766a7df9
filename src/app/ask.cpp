// chiasm ask: pictures are looked at once, all questions are answered in one batch over them.
#include <algorithm>
#include <iostream>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "app/command.h"
#include "app/console.h"
#include "app/options.h"
#include "app/pictures.h"
#include "app/vision_options.h"
#include "base/stopwatch.h"
#include "roles/language_side.h"

namespace chiasm {
namespace {

constexpr const char* kFooter =
    R"(Pictures stand before the question in one user message, videos after the pictures. All questions are answered at
once: what they have in common (system text and pictures) is computed once. In a picture's place its feature file may
be given, as chiasm encode writes it. Sampling follows the model's generation_config.json where no option says
otherwise; that of the published models keeps the one most likely token (top_k 1), so more varied answers take
--top-k 0 --top-p 1 beside a temperature.

The frames of a video are the words after --video that name files; the first other word is a question. Questions that
begin with '-' stand behind a '--' of its own. In --json, encode_ms counts decoding, resizing and encoding.

Examples:
  chiasm ask -i street.jpg "How many cars are there?"
  chiasm ask -i street.jpg "Is it day or night?" "有几棵树?"            two questions, one look
  chiasm ask -i before.png -i after.png "Which picture shows night?"    two pictures, one question
  chiasm ask --video frame-*.png "Which way does the car move?"
  chiasm ask -i upload.jpg --logprobs 2 --json - < checks.txt           one question a line, for machines
  chiasm ask -m Qwen2-VL-2B-Instruct -i a.jpg --temperature 0.7 --top-k 0 --top-p 1 --seed 1 "Describe the picture.")";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  OutputOptions output;
  std::vector<std::string> images, questions;
  std::vector<std::size_t> videos;  // indices into the frame lists
  std::optional<std::string> system;
  std::int64_t max_tokens = 256, logprobs = -1;
  std::optional<double> temperature, top_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  std::optional<std::uint64_t> seed;
  bool no_share_prefix = false;
  int threads = 0;
};

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

// "-" stands for the lines of standard input; so does no question at all, where standard input is no terminal.
std::vector<std::string> all_questions(std::vector<std::string> given) {
  if (given.empty() && ::isatty(STDIN_FILENO) == 0) given.emplace_back("-");
  std::vector<std::string> out;
  for (std::string& question : given) {
    if (question != "-") {
      out.push_back(std::move(question));
      continue;
    }
    for (std::string line; std::getline(std::cin, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!is_blank(line)) out.push_back(std::move(line));
    }
  }
  return out;
}

SamplingParams sampling_of(const Options& options, const GenerationConfig& config) {
  SamplingParams out = SamplingParams::from(config);
  out.temperature = options.temperature.value_or(out.temperature);
  out.top_k = options.top_k.value_or(out.top_k);
  out.top_p = options.top_p.value_or(out.top_p);
  out.repetition_penalty = options.repetition_penalty.value_or(out.repetition_penalty);
  out.seed = options.seed.value_or(out.seed);
  return out;
}

// Options that the others make void are not passed over in silence: generation_config.json decides what was not given.
void warn_of_void_options(const Options& options, const SamplingParams& sampling, Console& console) {
  const bool varied = options.temperature.value_or(0) > 0 || options.seed || options.top_p || options.top_k > 1;
  if (!varied) return;
  if (sampling.temperature == 0) {
    if (!options.temperature)
      console.warn("the model answers with the most likely tokens (do_sample false): add --temperature to sample");
  } else if ((sampling.top_k == 1 && !options.top_k) || (sampling.top_p < 0.01 && !options.top_p)) {
    console.warn(
        fmt::format("the model's generation_config.json leaves hardly a choice of tokens (top_k {}, top_p {}): "
                    "add --top-k 0 --top-p 1 to sample from all",
                    sampling.top_k, sampling.top_p));
  }
}

Chat chat_of(const std::optional<std::string>& system, const std::vector<LookedAt>& pictures,
             const std::string& question) {
  Chat out;
  if (system) out.messages.push_back({"system", {ChatPart::of_text(*system)}});
  ChatMessage user{"user", {}};
  for (const LookedAt& picture : pictures) {
    user.parts.push_back(picture.input.video ? ChatPart::video() : ChatPart::image());
    (picture.input.video ? out.videos : out.images).push_back(picture.seen.feature);
  }
  user.parts.push_back(ChatPart::of_text(question));
  out.messages.push_back(std::move(user));
  return out;
}

std::string_view finish_name(FinishReason reason) { return reason == FinishReason::kStop ? "stop" : "length"; }

nlohmann::ordered_json to_json(const std::string& question, const Completion& answer, bool logprobs) {
  nlohmann::ordered_json out;
  out["question"] = question;
  out["answer"] = answer.text;
  out["token_ids"] = answer.token_ids;
  out["prompt_tokens"] = answer.prompt_tokens;
  out["cached_tokens"] = answer.cached_tokens;
  out["prefill_ms"] = rounded_ms(answer.prefill_ms);
  out["decode_ms"] = rounded_ms(answer.decode_ms);
  out["finish_reason"] = finish_name(answer.finish_reason);
  if (!logprobs) return out;
  out["logprobs"] = nlohmann::ordered_json::array();
  for (const Logprobs& token : answer.logprobs) {
    nlohmann::ordered_json top = nlohmann::ordered_json::array();
    for (const TokenLogprob& other : token.top) top.push_back({other.id, other.logprob});
    out["logprobs"].push_back({{"id", token.chosen.id}, {"logprob", token.chosen.logprob}, {"top", std::move(top)}});
  }
  return out;
}

// A token as one readable word.
std::string token_text(const Tokenizer& tokenizer, std::int32_t id) {
  return json_text(nlohmann::ordered_json(std::string(tokenizer.token_bytes(id))));
}

void print_answer(Console& console, const Tokenizer& tokenizer, const std::string& question, const Completion& answer) {
  console.line("Q  {}", question);
  console.line("A  {}", console.strong(answer.text));
  console.line("   reused {} of {} prompt tokens, prefill {:.1f} ms, decode {:.1f} ms ({}{})", answer.cached_tokens,
               answer.prompt_tokens, answer.prefill_ms, answer.decode_ms, counted(answer.token_ids.size(), "token"),
               answer.context_full                             ? ", cut: the model's context is full"
               : answer.finish_reason == FinishReason::kLength ? ", cut at --max-tokens"
                                                               : "");
  for (const Logprobs& token : answer.logprobs) {
    std::string rest;
    for (const TokenLogprob& other : token.top)
      rest += fmt::format("  {} {:.3f}", token_text(tokenizer, other.id), other.logprob);
    console.line("   {:<16} {:8.3f} {}", token_text(tokenizer, token.chosen.id), token.chosen.logprob,
                 rest.empty() ? "" : "  of" + rest);
  }
}

// The vision encoder's memory is given back before the language model's is taken.
Result<std::vector<LookedAt>> look_at_all(const std::filesystem::path& model, const Options& options,
                                          const FrameLists& frames, ThreadPool& threads, Console& console) {
  ASSIGN_OR_RETURN(const VisionSideOptions side_options,
                   vision_options(model, options.model, options.pictures, console));
  console.progress("reading the configuration and the vision digest");
  ASSIGN_OR_RETURN(const std::unique_ptr<VisionSide> side, VisionSide::open(side_options, threads));
  std::vector<PictureInput> inputs = inputs_of(options.images, options.videos, frames);
  std::vector<LookedAt> out;
  for (PictureInput& input : inputs) {
    console.progress(fmt::format("looking at {} ({}/{})", input.name(), out.size() + 1, inputs.size()));
    ASSIGN_OR_RETURN(LookedAt picture, look_at(*side, side_options, std::move(input)));
    out.push_back(std::move(picture));
  }
  return out;
}

int run(const Options& options, const FrameLists& frames, Console& console) {
  if (options.output.json || options.output.quiet) console.be_quiet();
  if (options.images.empty() && options.videos.empty())
    return console.usage(
        "no picture was given: name one with -i PICTURE, or the frames of a video with --video FRAME...");
  if (const Status sound = check_frame_lists(frames); !sound) return console.usage(sound.error().message);
  for (const std::string& question : options.questions) {
    std::error_code error;
    if (std::filesystem::is_regular_file(question, error))
      console.warn(fmt::format("'{}' is a file, and is asked as a question: every picture needs an -i", question));
  }
  const std::vector<std::string> questions = all_questions(options.questions);
  if (questions.empty())
    return console.usage("no question was given: write it behind the pictures, or pipe in one question a line");
  for (std::size_t i = 0; i < questions.size(); ++i)
    if (is_blank(questions[i])) return console.usage(fmt::format("question {} is empty", i + 1));

  const Result<std::filesystem::path> model = model_folder(options.model);
  if (!model) return console.fault(model.error());
  const Result<std::optional<std::filesystem::path>> weights = weights_folder(options.model);
  if (!weights) return console.fault(weights.error());
  ThreadPool threads(options.threads);
  // Costs no weights, and a folder that cannot answer is found before time is spent on pictures.
  LanguageSideOptions side_options;
  side_options.model = *model;
  side_options.device = options.model.device;
  side_options.precision = options.model.language();
  side_options.vision_precision = options.model.vision();
  side_options.weights = *weights;
  side_options.engine.share_prefix = !options.no_share_prefix;
  side_options.on_warning = [&console](std::string_view message) { console.warn(message); };
  side_options.on_load = progress_of_loading(console, "the language model");
  console.progress("reading the configuration and the tokenizer");
  const Result<std::unique_ptr<LanguageSide>> side = LanguageSide::open(side_options, threads);
  if (!side) return console.fault(side.error());
  AnswerOptions answer_options;
  answer_options.sampling = sampling_of(options, (*side)->generation_config());
  answer_options.max_tokens = options.max_tokens;
  answer_options.logprobs = options.logprobs;
  warn_of_void_options(options, answer_options.sampling, console);
  const Result<std::vector<LookedAt>> pictures = look_at_all(*model, options, frames, threads, console);
  if (!pictures) return console.fault(pictures.error());
  if (!options.output.json) {
    for (const LookedAt& picture : *pictures)
      console.line("{}: {}", console.strong(picture.input.name()), describe(picture));
  }

  std::vector<Chat> chats;
  chats.reserve(questions.size());
  for (const std::string& question : questions) chats.push_back(chat_of(options.system, *pictures, question));
  if (const Status loaded = (*side)->load(); !loaded) return console.fault(loaded.error());
  console.progress(fmt::format("answering {}", counted(questions.size(), "question")));
  const Stopwatch watch;
  std::size_t characters = 0;
  const Result<std::vector<Completion>> answers =
      (*side)->ask(chats, answer_options, [&](std::size_t, std::string_view text) {
        characters += text.size();
        console.progress(
            fmt::format("answering {}: {} bytes of text", counted(questions.size(), "question"), characters));
      });
  if (!answers) return console.fault(answers.error());
  const double ask_ms = watch.ms();

  if (options.output.json) {
    nlohmann::ordered_json out;
    out["model"] = model->string();
    out["images"] = nlohmann::ordered_json::array();
    if (!options.videos.empty()) out["videos"] = nlohmann::ordered_json::array();
    for (const LookedAt& picture : *pictures)
      out[picture.input.video ? "videos" : "images"].push_back(picture_json<nlohmann::ordered_json>(picture));
    out["answers"] = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < questions.size(); ++i)
      out["answers"].push_back(to_json(questions[i], (*answers)[i], options.logprobs >= 0));
    console.line("{}", json_text(out));
    return kExitSuccess;
  }
  for (std::size_t i = 0; i < questions.size(); ++i)
    print_answer(console, (*side)->tokenizer(), questions[i], (*answers)[i]);
  console.line("{} answered in {:.1f} ms, the shared beginning included", counted(questions.size(), "question"),
               ask_ms);
  return kExitSuccess;
}

}  // namespace

Command add_ask(CLI::App& program, const FrameLists& frames) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("ask", "Answer questions about pictures or a video");
  app->footer(kFooter);
  add_model_option(*app, options->model, Devices::kSeveral);
  add_vision_device_option(*app, options->model);
  app->add_option("-i,--image", options->images, "A picture: JPEG, PNG, WebP, GIF or BMP. Again for more")
      ->type_name("PICTURE")
      ->allow_extra_args(false);
  add_video_option(*app, options->videos);
  add_words(*app, "question", options->questions,
            "What to ask; '-' or nothing: one question a line from standard input")
      ->type_name("TEXT");
  app->add_option("--system", options->system, "System text instead of the model's own; may be empty")
      ->type_name("TEXT");
  expect_whole(app->add_option("--max-tokens", options->max_tokens, "Longest answer, in tokens (default: 256)"), 1,
               1 << 20);
  expect_number(
      app->add_option("--temperature", options->temperature, "0: always the most likely token; higher: more varied"),
      "a number from 0 to 100", [](double x) { return x >= 0 && x <= 100; });
  expect_whole(app->add_option("--top-k", options->top_k, "Sample from the N most likely tokens (0: all)"), 0,
               1ULL << 31);
  expect_number(app->add_option("--top-p", options->top_p,
                                "Sample from the likeliest tokens that together reach this probability"),
                "a number from 0 to 1", [](double x) { return x >= 0 && x <= 1; });
  expect_number(app->add_option("--repetition-penalty", options->repetition_penalty,
                                "Above 1: tokens used before become less likely"),
                "a number above 0 and at most 100", [](double x) { return x > 0 && x <= 100; });
  expect_whole(app->add_option("--seed", options->seed,
                               "Of the random numbers; the same seed gives the same answer (default: 0)"),
               0, UINT64_MAX);
  expect_whole(
      app->add_option("--logprobs", options->logprobs, "Log-probability of each token, and of the N most likely ones"),
      0, 100);
  app->add_flag("--no-share-prefix", options->no_share_prefix, "Compute every question from its start, for comparison");
  add_picture_options(*app, options->pictures, "$XDG_CACHE_HOME/chiasm/features");
  add_decode_options(*app, options->pictures);
  add_threads_option(*app, options->threads);
  add_output_options(*app, options->output, "One JSON object: model, images, answers");
  return {app, [options, &frames](Console& console) { return run(*options, frames, console); }};
}

}  // namespace chiasm
