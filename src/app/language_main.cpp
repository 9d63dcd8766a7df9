// The program chiasm-language: a server that answers questions. No vision weights, no image codec: it asks vision
// servers.
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/console.h"
#include "app/language_options.h"
#include "app/lifetime.h"
#include "app/options.h"
#include "app/program.h"
#include "app/server_options.h"
#include "app/serving.h"
#include "base/secret.h"
#include "roles/remote_eye.h"

namespace chiasm {
namespace {

constexpr const char* kDescription =
    "chiasm-language: the language half as a server, with the OpenAI API and the page. Pictures that are new to it go "
    "to\n"
    "vision servers (chiasm-vision); their features come back and are kept.";

constexpr const char* kFooter =
    R"(Of several vision servers each picture has its own first one, so that their caches add up; when one fails the next is
asked. Where --features names a folder that the vision servers of this machine use too, features are read from there
and no tensor crosses a socket.

Examples:
  chiasm-vision --listen :9001 &                             the demo model's vision half
  chiasm-language --vision http://localhost:9001             the API and the page on http://localhost:8080
  chiasm-language -m halves/language --listen 0.0.0.0:8080 --api-key-file keys.txt \
    --vision http://host-a:9001,http://host-b:9001 --vision-key-file role.key

Exit codes: 0 ended in order, 1 the input or the model is at fault, 2 wrong usage.)";

struct Options {
  ModelOption model;
  PictureOptions pictures;
  std::optional<std::uint64_t> feature_memory;
  LanguageFlags language;
  ServerFlags server;
  std::vector<std::string> vision;
  std::string vision_key_file, vision_ca, vision_cert, vision_cert_key;
};

void add_vision_servers(CLI::App& app, Options& options) {
  app.add_option("--vision", options.vision, "Vision servers, as in http://host-a:9001,http://host-b:9001")
      ->type_name("URL,...")
      ->delimiter(',')
      ->required();
  app.add_option("--vision-key-file", options.vision_key_file, "Show them the first key in this file")
      ->type_name("FILE");
  app.add_option("--vision-ca", options.vision_ca, "Trust this CA (PEM) beside the system's for https")
      ->type_name("FILE");
  app.add_option("--vision-cert", options.vision_cert, "Show them the certificate in this PEM file")->type_name("FILE");
  app.add_option("--vision-cert-key", options.vision_cert_key, "and its key, in this one")->type_name("FILE");
}

Result<std::unique_ptr<VisionFleet>> fleet_of(const Options& options, const LanguageSide& language,
                                              const Digest& vision_digest, std::vector<Digest> accepted, Log& log) {
  FleetOptions out;
  for (const std::string& text : options.vision) {
    auto url = Url::parse(text);
    if (!url) return fail_in("--vision", url.error());
    out.servers.push_back(std::move(*url));
  }
  if (!options.vision_key_file.empty()) {
    const auto secrets = Secrets::load(options.vision_key_file);
    if (!secrets) return fail(Code::kFailedPrecondition, "--vision-key-file: {}", secrets.error().message);
    out.secret = secrets->first();
  }
  out.vision_digest = vision_digest;
  out.accepted_digests = std::move(accepted);
  out.width = language.config().text.hidden_size;
  out.merge = language.config().vision.spatial_merge_size;
  out.log = [&log](std::string_view line) { log.warn(line); };
  ClientOptions client_options;
  client_options.ca_file = options.vision_ca;
  client_options.certificate = options.vision_cert;
  client_options.key = options.vision_cert_key;
  ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> client, HttpClient::create(client_options));
  return VisionFleet::create(std::move(out), std::move(client));
}

int run(const Options& options, Console& console) {
  Lifetime lifetime;
  const auto serve = [&]() -> Result<int> {
    ASSIGN_OR_RETURN(const std::filesystem::path model, model_folder(options.model));
    Metrics metrics;
    Log log(log_level_of(options.server), log_format_of(options.server));
    ASSIGN_OR_RETURN(FrontOptions front, or_usage(front_options(options.server)));
    ThreadPool threads(options.server.threads);
    const auto warn = [&log](std::string_view message) { log.warn(message); };

    ASSIGN_OR_RETURN(std::vector<Digest> accepted, or_usage(accepted_digests(options.language)));
    LanguageSideOptions side_options;
    side_options.model = model;
    side_options.device = options.model.device;
    side_options.precision = options.model.language();
    side_options.vision_precision = options.model.vision();
    ASSIGN_OR_RETURN(side_options.weights, weights_folder(options.model));
    side_options.engine = engine_options(options.language);
    side_options.engine.on_step = step_observer(metrics, log);
    side_options.accepted_vision_digests = accepted;
    side_options.on_warning = warn;
    ASSIGN_OR_RETURN(const std::unique_ptr<LanguageSide> language, LanguageSide::open(side_options, threads));
    ASSIGN_OR_RETURN(const Digest vision_digest, language->vision_digest());

    RemoteEyeOptions eye_options;
    eye_options.model = model;
    eye_options.vision_digest = vision_digest;
    ASSIGN_OR_RETURN(eye_options.features, features_folder(options.pictures));
    eye_options.disk_bytes = options.pictures.features_size.value_or(eye_options.disk_bytes);
    eye_options.memory_bytes = options.feature_memory.value_or(eye_options.memory_bytes);
    eye_options.min_pixels = options.pictures.min_pixels;
    eye_options.max_pixels = options.pictures.max_pixels;
    eye_options.on_warning = warn;
    ASSIGN_OR_RETURN(std::unique_ptr<VisionFleet> fleet,
                     or_usage(fleet_of(options, *language, vision_digest, accepted, log)));
    ASSIGN_OR_RETURN(const std::unique_ptr<RemoteEye> eye, RemoteEye::open(eye_options, std::move(fleet)));

    ASSIGN_OR_RETURN(const std::unique_ptr<HttpClient> client, HttpClient::create());
    PictureDesk desk(*eye, *client, language->config(),
                     picture_desk_options(options.language, vision_digest, std::move(accepted)));
    LanguageServer server(*language, *eye, desk, metrics, log,
                          language_server_options(options.language, model, options.server.max_body));
    return serve_until_told(
        {console, lifetime, metrics, log}, std::move(front), server.routes(), drain_time_of(options.server),
        [&] { return language->load(); }, [&] { language->close(); });
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
      "chiasm-language", kDescription, argc, argv,
      [&](CLI::App& app) {
        app.footer(kFooter);
        add_model_option(app, options.model, Devices::kSeveral);
        add_vision_servers(app, options);
        add_server_options(app, options.server, "127.0.0.1:8080");
        add_language_options(app, options.language);
        add_picture_options(app, options.pictures, "$XDG_CACHE_HOME/chiasm/features");
        add_feature_memory_option(app, options.feature_memory);
      },
      [&](Console& console) { return run(options, console); });
}
