#include "app/language_options.h"

#include <algorithm>
#include <utility>

#include <CLI/CLI.hpp>

#include "app/options.h"

namespace chiasm {

void add_language_options(CLI::App& app, LanguageFlags& flags) {
  app.add_option("--served-model-name", flags.served_model_names,
                 "Name of the model in requests and answers (default: the folder's name); again\nfor further names")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--tenant-header", flags.tenant_header,
                 "Keep apart what is kept for clients that differ in this request header")
      ->type_name("NAME");
  app.add_option("--media-domains", flags.media_domains,
                 "Fetch picture URLs of these hosts ('.example.org': all below it); without it\nnone are fetched")
      ->type_name("HOST,...")
      ->delimiter(',');
  app.add_flag("--media-private-networks", flags.media_private_networks,
               "Fetch them also where they lie in private networks or on this machine");
  expect_number(app.add_option("--media-timeout", flags.media_timeout, "within X seconds (default: 10)"),
                "seconds, above 0 and at most 3600", [](double x) { return x > 0 && x <= 3600; });
  add_size_option(app, "--max-picture", flags.max_picture, "Take picture files of up to SIZE (default: 64MiB)");
  add_size_option(app, "--max-text", flags.max_text, "Take up to SIZE of text in a request (default: 4MiB)");
  expect_whole(
      app.add_option("--max-images", flags.max_images, "Take N pictures and frames in a request (default: 64)"), 1,
      4096);
  expect_whole(
      app.add_option("--max-questions", flags.max_questions, "Take N questions in one POST /v1/ask (default: 256)"), 1,
      4096);
  expect_whole(app.add_option("--max-json-depth", flags.max_json_depth, "Take JSON of N levels (default: 32)"), 4, 64);
  add_size_option(app, "--kv-memory", flags.kv_memory,
                  "Memory for keys and values of running and cached sequences (default: 4GiB, or\none sequence of the "
                  "model's full context where that is more; taken as needed.\nOn cards: three quarters of what is "
                  "free, taken at once; several\ntogether have so much)");
  expect_whole(
      app.add_option("--step-tokens", flags.step_tokens, "Compute at most N tokens in one pass (default: 512)"), 1,
      65'536);
  expect_number(app.add_option("--max-stall", flags.max_stall,
                               "Let new prompts and pictures hold up running streams by X seconds a token,\nor with 0 "
                               "as long as a full pass takes (default: 0.05)"),
                "seconds, from 0 to 60", [](double x) { return x >= 0 && x <= 60; });
  expect_whole(app.add_option("--max-sequences", flags.max_sequences, "Answer N questions at once (default: 64)"), 1,
               4096);
  expect_whole(app.add_option("--max-waiting", flags.max_waiting,
                              "Let N more wait, and tell others to come back (default: 256)"),
               1, 1'000'000);
  app.add_flag("--no-share-prefix", flags.no_share_prefix, "Compute every prompt whole");
  app.add_flag("--pictures-first", flags.pictures_first,
               "Put pictures before the text of their message, so that every further question\nreuses their tokens");
  app.add_option("--accept-vision-digest", flags.accept_vision_digests,
                 "Take features of this vision encoder too (64 hexadecimal digits); again for more")
      ->type_name("DIGEST")
      ->allow_extra_args(false);
  expect_number(app.add_option("--ping-interval", flags.ping_interval,
                               "Send a stream that has nothing to say a comment every X seconds (default: 15)"),
                "seconds, from 0.01 to 3600", [](double x) { return x >= 0.01 && x <= 3600; });
  app.add_flag("--no-web", flags.no_web, "Do not serve the page");
}

Result<std::vector<Digest>> accepted_digests(const LanguageFlags& flags) {
  std::vector<Digest> out;
  for (const std::string& text : flags.accept_vision_digests) {
    auto digest = Digest::from_hex(text);
    if (!digest) return fail_in("--accept-vision-digest", digest.error());
    out.push_back(*digest);
  }
  return out;
}

EngineOptions engine_options(const LanguageFlags& flags) {
  EngineOptions out;
  out.kv_bytes = flags.kv_memory.value_or(out.kv_bytes);
  out.step_tokens = flags.step_tokens.value_or(out.step_tokens);
  out.stall_ms = flags.max_stall * 1e3;
  out.max_sequences = flags.max_sequences.value_or(out.max_sequences);
  out.max_waiting = flags.max_waiting.value_or(out.max_waiting);
  out.share_prefix = !flags.no_share_prefix;
  return out;
}

LanguageServerOptions language_server_options(const LanguageFlags& flags, const std::filesystem::path& model,
                                              std::optional<std::uint64_t> max_body) {
  LanguageServerOptions out;
  out.model_names = flags.served_model_names;
  if (out.model_names.empty()) {
    const std::filesystem::path clean = std::filesystem::absolute(model).lexically_normal();
    out.model_names.push_back((clean.has_filename() ? clean : clean.parent_path()).filename().string());
  }
  out.tenant_header = flags.tenant_header;
  RequestLimits& limits = out.limits;
  const auto set = [](auto& limit, const auto& given) {
    if (given) limit = static_cast<std::remove_reference_t<decltype(limit)>>(*given);
  };
  set(limits.max_images, flags.max_images);
  set(limits.max_questions, flags.max_questions);
  set(limits.max_depth, flags.max_json_depth);
  set(limits.max_text, flags.max_text);
  out.max_body = max_body.value_or(out.max_body);
  out.version = CHIASM_VERSION;
  out.web = !flags.no_web;
  out.pictures_first = flags.pictures_first;
  out.ping_every = std::chrono::milliseconds(static_cast<std::int64_t>(flags.ping_interval * 1e3));
  return out;
}

PictureDeskOptions picture_desk_options(const LanguageFlags& flags, const Digest& vision_digest,
                                        std::vector<Digest> accepted) {
  PictureDeskOptions out;
  out.media.domains = flags.media_domains;
  out.media.private_networks = flags.media_private_networks;
  out.media_timeout = std::chrono::milliseconds(static_cast<std::int64_t>(flags.media_timeout * 1e3));
  out.max_picture = flags.max_picture.value_or(out.max_picture);
  out.media.max_body = out.max_picture;
  out.vision_digest = vision_digest;
  out.accepted = std::move(accepted);
  return out;
}

}  // namespace chiasm
