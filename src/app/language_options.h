// Options of the servers that answer questions: names, tenants, picture URLs, limits, the KV pool.
//
// Thread contract: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "language/engine.h"
#include "roles/language_server.h"
#include "roles/language_side.h"
#include "roles/picture_desk.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}  // namespace CLI

namespace chiasm {

struct LanguageFlags {
  std::vector<std::string> served_model_names;
  std::string tenant_header;
  std::vector<std::string> media_domains;
  bool media_private_networks = false;
  double media_timeout = 10;
  double ping_interval = 15;
  double max_stall = 0.05;
  std::optional<std::uint64_t> max_picture, max_text, kv_memory;
  std::optional<std::int64_t> max_images, max_questions, max_json_depth;
  std::optional<std::int64_t> step_tokens, max_sequences, max_waiting;
  bool no_share_prefix = false, no_web = false, pictures_first = false;
  std::vector<std::string> accept_vision_digests;
};

void add_language_options(CLI::App& app, LanguageFlags& flags);

Result<std::vector<Digest>> accepted_digests(const LanguageFlags& flags);
EngineOptions engine_options(const LanguageFlags& flags);
// `model` is the checkpoint's folder: its name is the model's where no other is given.
LanguageServerOptions language_server_options(const LanguageFlags& flags, const std::filesystem::path& model,
                                              std::optional<std::uint64_t> max_body);
PictureDeskOptions picture_desk_options(const LanguageFlags& flags, const Digest& vision_digest,
                                        std::vector<Digest> accepted);

}  // namespace chiasm
