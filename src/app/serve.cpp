// chiasm serve: one process that looks and answers, with the page.
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/console.h"
#include "app/language_options.h"
#include "app/lifetime.h"
#include "app/options.h"
#include "app/program.h"
#include "app/server_options.h"
#include "app/serving.h"
#include "app/vision_flags.h"
#include "app/vision_options.h"
#include "base/right_of_way.h"
#include "roles/local_eye.h"

namespace chiasm {
namespace {

constexpr const char* kDescription = "Serve the OpenAI API and a page, vision and language in one process";

constexpr const char* kFooter =
    R"(The OpenAI API (POST /v1/chat/completions), questions in one batch (POST /v1/ask), pictures uploaded once
(POST /v1/images), GET /metrics, /openapi.json, and the page at /. The vision encoder apart from the language model, on
machines of their own: chiasm-vision and chiasm-language.

Examples:
  chiasm serve                                               the demo model on http://localhost:8080
  chiasm serve -m Qwen2-VL-2B-Instruct --listen :9000
  chiasm serve -m MODEL --listen 0.0.0.0:8080 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem
  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": "toytown",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}'

SIGTERM: no new requests, running ones are finished, exit code 0.)";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  VisionFlags vision;
  LanguageFlags language;
  ServerFlags server;
};

int run(const Options& options, Console& console) {
  Lifetime lifetime;
  const auto serve = [&]() -> Result<int> {
    ASSIGN_OR_RETURN(const std::filesystem::path model, model_folder(options.model));
    Metrics metrics;
    Log log(log_level_of(options.server), log_format_of(options.server));
    ASSIGN_OR_RETURN(FrontOptions front, or_usage(front_options(options.server)));
    ThreadPool threads(options.server.threads);
    // Pictures are looked at by threads of their own, which stand behind the steps in which streams get their tokens:
    // in one pool an answer's many short loops would each wait for a long one of the encoder.
    RightOfWay way;
    ThreadPool vision_threads(options.server.threads, &way);

    console.be_quiet();  // progress lines are for terminals; servers log
    ASSIGN_OR_RETURN(VisionSideOptions vision_side_options,
                     vision_options(model, options.model, options.pictures, console));
    apply(options.vision, vision_side_options);
    vision_side_options.on_warning = [&log](std::string_view message) { log.warn(message); };
    vision_side_options.on_load = nullptr;
    ASSIGN_OR_RETURN(const std::unique_ptr<VisionSide> vision, VisionSide::open(vision_side_options, vision_threads));
    warn_of_folder(vision->source(), log);
    LocalEye eye(*vision);

    ASSIGN_OR_RETURN(std::vector<Digest> accepted, or_usage(accepted_digests(options.language)));
    LanguageSideOptions side_options;
    side_options.model = model;
    side_options.device = options.model.device;
    side_options.precision = options.model.language();
    side_options.vision_precision = options.model.vision();
    ASSIGN_OR_RETURN(side_options.weights, weights_folder(options.model));
    side_options.engine = engine_options(options.language);
    side_options.engine.on_step = step_observer(metrics, log);
    side_options.engine.way = &way;
    side_options.accepted_vision_digests = accepted;
    side_options.on_warning = [&log](std::string_view message) { log.warn(message); };
    ASSIGN_OR_RETURN(const std::unique_ptr<LanguageSide> language, LanguageSide::open(side_options, threads));

    ASSIGN_OR_RETURN(const std::unique_ptr<HttpClient> client, HttpClient::create());
    PictureDesk desk(eye, *client, language->config(),
                     picture_desk_options(options.language, vision->vision_digest(), std::move(accepted)));
    LanguageServer server(*language, eye, desk, metrics, log,
                          language_server_options(options.language, model, options.server.max_body));
    return serve_until_told(
        {console, lifetime, metrics, log}, std::move(front), server.routes(), drain_time_of(options.server),
        [&]() -> Status {
          ASSIGN_OR_RETURN([[maybe_unused]] const Encoder* encoder, vision->encoder());
          return language->load();
        },
        [&] { language->close(); });
  };
  const Result<int> code = serve();
  return code ? *code : console.fault(code.error());
}

}  // namespace

Command add_serve(CLI::App& program) {
  // Shown in the program's help only: the words behind it are a program's of their own, read by run_serve().
  return {program.add_subcommand("serve", kDescription), nullptr};
}

// A configuration file belongs to a whole program: CLI11 reads none for a subcommand.
int run_serve(int argc, char** argv) {
  Options options;
  return run_single_program(
      "chiasm serve", kDescription, argc, argv,
      [&](CLI::App& app) {
        app.footer(kFooter);
        add_model_option(app, options.model, Devices::kSeveral);
        add_vision_device_option(app, options.model);
        add_server_options(app, options.server, "127.0.0.1:8080");
        add_language_options(app, options.language);
        add_picture_options(app, options.pictures, "$XDG_CACHE_HOME/chiasm/features");
        add_decode_options(app, options.pictures);
        add_vision_flags(app, options.vision);
      },
      [&](Console& console) { return run(options, console); });
}

}  // namespace chiasm
