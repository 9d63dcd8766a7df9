// The program chiasm-vision: a server that looks at pictures. No language weights, no tokenizer.
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/console.h"
#include "app/lifetime.h"
#include "app/options.h"
#include "app/program.h"
#include "app/server_options.h"
#include "app/serving.h"
#include "app/vision_flags.h"
#include "app/vision_options.h"
#include "roles/vision_metrics.h"
#include "roles/vision_server.h"

namespace chiasm {
namespace {

constexpr const char* kDescription =
    "chiasm-vision: the vision half as a server. Pictures in, feature files out; the language half asks it.";

constexpr const char* kFooter =
    R"(POST /v1/features takes a picture and answers with its feature file; GET, HEAD and DELETE /v1/features/{id};
GET /v1/info, /health/live, /health/ready, /metrics, /version. Only the vision weights of the checkpoint are read.

Examples:
  chiasm-vision --listen :9001                               the demo model's vision half on localhost
  chiasm-vision -m halves/vision --listen 0.0.0.0:9001 --api-key-file role.key
  curl --data-binary @street.jpg localhost:9001/v1/features -o street.safetensors
  chiasm-language --vision http://localhost:9001             then asks it

Exit codes: 0 ended in order, 1 the input or the model is at fault, 2 wrong usage.)";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  VisionFlags vision;
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
    ASSIGN_OR_RETURN(VisionSideOptions side_options, vision_options(model, options.model, options.pictures, console));
    apply(options.vision, side_options);
    side_options.on_warning = [&log](std::string_view message) { log.warn(message); };
    side_options.on_load = nullptr;
    ASSIGN_OR_RETURN(const std::unique_ptr<VisionSide> side, VisionSide::open(side_options, threads));
    warn_of_folder(side->source(), log);
    metrics.on_read([&side](MetricReader& reader) { read_vision_metrics(*side, reader); });
    VisionServerOptions server_options;
    server_options.max_body = options.server.max_body.value_or(server_options.max_body);
    server_options.version = CHIASM_VERSION;
    VisionServer server(*side, server_options);
    return serve_until_told(
        {console, lifetime, metrics, log}, std::move(front), server.routes(), drain_time_of(options.server),
        [&]() -> Status {
          ASSIGN_OR_RETURN([[maybe_unused]] const Encoder* encoder, side->encoder());
          return {};
        },
        nullptr);
  };
  const Result<int> code = serve();
  return code ? *code : console.fault(code.error());
}

}  // namespace
}  // namespace chiasm

int main(int argc, char** argv) {
  using namespace chiasm;
  Options options;
  return run_single_program(
      "chiasm-vision", kDescription, argc, argv,
      [&](CLI::App& app) {
        app.footer(kFooter);
        add_model_option(app, options.model);
        add_server_options(app, options.server, "127.0.0.1:9001");
        add_picture_options(app, options.pictures, "$XDG_CACHE_HOME/chiasm/features");
        add_decode_options(app, options.pictures);
        add_vision_flags(app, options.vision);
      },
      [&](Console& console) { return run(options, console); });
}
