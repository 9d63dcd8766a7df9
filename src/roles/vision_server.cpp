#include "roles/vision_server.h"

#include <charconv>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "api/error.h"
#include "features/feature_file.h"
#include "http/accept.h"
#include "http/multipart.h"
#include "roles/replies.h"

namespace chiasm {
namespace {

// Named in a question: where the asking side reads features. Named in an answer without a body: it is in there.
constexpr std::string_view kFolderHeader = "X-Chiasm-Folder";

constexpr std::string_view kMissing = "No feature is kept under this id.";

// What a POST asks for. The files are views into the body.
struct Upload {
  std::vector<std::span<const std::byte>> files;
  std::string param;  // what errors of the files are about
  PixelBounds bounds;
};

tl::unexpected<ApiError> refuse(std::string message, std::string param) {
  return tl::unexpected(ApiError{ErrorKind::kInvalidRequest, std::move(message), std::move(param)});
}

// The file is what a client gets that has no wish, or likes both as much.
bool wants_json(const HttpRequest& request) {
  const std::string_view accept = request.headers.find("Accept").value_or("");
  const double json = accept_weight(accept, "application/json");
  return json > 0 && json > accept_weight(accept, "application/octet-stream");
}

// A feature's bytes follow from its id: both forms of an answer have a tag of their own, and it never changes.
std::string tag_of(const FeatureId& id, bool json) { return fmt::format("\"{}{}\"", id.hex(), json ? ".json" : ""); }

// One of min_pixels and max_pixels, wherever it stands.
ApiResult<void> set_bound(PixelBounds& bounds, std::string_view name, std::string_view text) {
  std::optional<std::int64_t>& bound = name == "min_pixels" ? bounds.min_pixels : bounds.max_pixels;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return refuse(fmt::format("{}: expected a whole number of pixels", name), std::string(name));
  if (bound) return refuse(fmt::format("{} is given more than once", name), std::string(name));
  bound = value;
  return {};
}

bool is_bound(std::string_view name) { return name == "min_pixels" || name == "max_pixels"; }

ApiResult<void> read_form(const HttpRequest& request, std::string_view body, std::size_t max_frames, Upload& out) {
  constexpr std::size_t kFields = 2;
  const auto parts = parse_multipart(*request.headers.find("Content-Type"), body, max_frames + kFields);
  if (!parts) return tl::unexpected(api_error(parts.error()));
  for (const FormPart& part : *parts) {
    if (is_bound(part.name)) {
      if (auto set = set_bound(out.bounds, part.name, part.bytes); !set) return set;
      continue;
    }
    if (part.name != "image" && part.name != "frame")
      return refuse("expected parts named image, frame, min_pixels and max_pixels, got another", "");
    if (!out.files.empty() && (part.name == "image" || out.param == "image"))
      return refuse("expected one part named image, or parts named frame", part.name);
    out.param = part.name;
    out.files.push_back(std::as_bytes(std::span(part.bytes)));
  }
  if (out.files.empty()) return refuse("expected a part named image, or parts named frame, got none", "image");
  if (out.files.size() > max_frames)
    return refuse(fmt::format("expected at most {} frames, got {}", max_frames, out.files.size()), "frame");
  return {};
}

ApiResult<Upload> read_upload(const HttpRequest& request, std::string_view body, std::size_t max_frames) {
  Upload out;
  for (const auto& [name, value] : request.query) {
    if (!is_bound(name)) continue;
    if (auto set = set_bound(out.bounds, name, value); !set) return tl::unexpected(std::move(set).error());
  }
  if (has_media_type(request, "multipart/form-data")) {
    if (auto read = read_form(request, body, max_frames, out); !read) return tl::unexpected(std::move(read).error());
  } else {
    if (body.empty()) return refuse("expected a picture, got an empty body", "image");
    out.files = {std::as_bytes(std::span(body))};
    out.param = "image";
  }
  return out;
}

double rounded(double ms) { return std::round(ms * 1000) / 1000; }

std::string describe(const SeenPicture& seen) {
  const FeatureMeta& meta = seen.feature->meta;
  nlohmann::ordered_json out;
  out["object"] = "feature";
  out["id"] = meta.id.hex();
  out["vision_digest"] = meta.vision_digest.hex();
  out["preprocess_digest"] = meta.preprocess_digest.hex();
  out["image_digest"] = meta.image_digest.hex();
  out["grid_thw"] = meta.grid_thw;
  out["tokens"] = seen.feature->rows.rows();
  out["width"] = seen.feature->rows.cols();
  out["dtype"] = dtype_name(meta.dtype);
  out["model"] = meta.model;
  if (!meta.arithmetic.empty()) out["arithmetic"] = meta.arithmetic;
  out["source"] = source_name(seen.source);
  out["ms"] = {{"decode", rounded(seen.times.decode_ms)},
               {"resize", rounded(seen.times.resize_ms)},
               {"patchify", rounded(seen.times.patchify_ms)},
               {"encode", rounded(seen.times.encode_ms)},
               {"total", rounded(seen.fetch_ms)}};
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// What every answer about a feature says beside it.
Headers feature_headers(const SeenPicture& seen) {
  return {{"X-Feature-Id", seen.feature->meta.id.hex()},
          {"X-Feature-Source", std::string(source_name(seen.source))},
          {"X-Vision-Ms", fmt::format("{:.3f}", seen.fetch_ms)},
          {"X-Feature-Tokens", std::to_string(seen.feature->rows.rows())}};
}

void reply_feature(Exchange& exchange, const SeenPicture& seen) {
  const bool json = wants_json(exchange.request());
  HttpResponse out;
  if (json) {
    out.body = describe(seen);
  } else {
    const auto bytes = serialize_feature(*seen.feature, DType::kF32);
    if (!bytes) return reply_error(exchange, api_error({Code::kInternal, bytes.error().message}));
    out.body.assign(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }
  out.headers = feature_headers(seen);
  out.headers.add("Content-Type", json ? "application/json" : "application/octet-stream");
  out.headers.add("ETag", tag_of(seen.feature->meta.id, json));
  out.headers.add("Vary", "Accept");
  exchange.respond(std::move(out));
}

// The id in the path; without one the client has its answer.
std::optional<FeatureId> id_of(Exchange& exchange) {
  const auto id = FeatureId::from_hex(exchange.request().capture("id"));
  if (id) return *id;
  reply_error(exchange, {ErrorKind::kInvalidRequest, "expected an id of 64 lower-case hexadecimal digits", "id"});
  return std::nullopt;
}

void reply_missing(Exchange& exchange, const Error& error) {
  if (error.code != Code::kNotFound) return reply_error(exchange, api_error(error, "id"));
  reply_error(exchange, {ErrorKind::kNotFound, std::string(kMissing), "id"});
}

}  // namespace

VisionServer::VisionServer(VisionSide& side, VisionServerOptions options) : side_(side), options_(std::move(options)) {}

std::vector<Route> VisionServer::routes() const {
  const auto route = [this](const char* method, const char* pattern, void (VisionServer::*handle)(Exchange&) const,
                            std::uint64_t max_body = 0) {
    return Route{.method = method,
                 .pattern = pattern,
                 .handler = [this, handle](Exchange& exchange) { (this->*handle)(exchange); },
                 .lane = Route::Lane::kWork,
                 .open = false,
                 .max_body = max_body};
  };
  return {route("POST", "/v1/features", &VisionServer::post_feature, options_.max_body),
          route("GET", "/v1/features/{id}", &VisionServer::get_feature),
          route("DELETE", "/v1/features/{id}", &VisionServer::delete_feature),
          route("GET", "/v1/info", &VisionServer::get_info)};
}

std::string VisionServer::tenant_of(const HttpRequest& request) const {
  return std::string(request.headers.find(options_.tenant_header).value_or(""));
}

void VisionServer::post_feature(Exchange& exchange) const {
  const std::string body = exchange.take_body();
  const HttpRequest& request = exchange.request();
  const auto upload = read_upload(request, body, options_.max_frames);
  if (!upload) return reply_error(exchange, upload.error());
  if (const auto sound = with_bounds(side_.preprocessor(), upload->bounds); !sound)
    return reply_error(exchange, api_error(sound.error(), upload->bounds.max_pixels ? "max_pixels" : "min_pixels"));
  const std::string tenant = tenant_of(request);
  // Shared with the callback: it may be at work while this function returns.
  const auto gone = std::make_shared<CancelFlag>(false);
  exchange.on_gone([gone] { *gone = true; });
  const auto seen = side_.look(
      upload->files, {.bounds = upload->bounds, .tenant = tenant, .deadline = request.deadline, .cancel = gone.get()});
  if (!seen) return reply_error(exchange, api_error(seen.error(), upload->param));
  if (const auto folder = request.headers.find(kFolderHeader);
      folder && side_.is_kept_in(*folder, seen->feature->meta.id)) {
    HttpResponse out{204, feature_headers(*seen), {}};
    out.headers.set(kFolderHeader, std::string(*folder));
    return exchange.respond(std::move(out));
  }
  reply_feature(exchange, *seen);
}

void VisionServer::get_feature(Exchange& exchange) const {
  const HttpRequest& request = exchange.request();
  const std::optional<FeatureId> id = id_of(exchange);
  if (!id) return;
  const auto seen = side_.find(*id, tenant_of(request));
  if (!seen) return reply_missing(exchange, seen.error());
  if (const std::string tag = tag_of(*id, wants_json(request)); has_current(request, tag)) {
    HttpResponse out;
    out.status = 304;
    out.headers = {{"ETag", tag}, {"Vary", "Accept"}};
    return exchange.respond(std::move(out));
  }
  reply_feature(exchange, *seen);
}

void VisionServer::delete_feature(Exchange& exchange) const {
  const std::optional<FeatureId> id = id_of(exchange);
  if (!id) return;
  if (const Status forgotten = side_.forget(*id, tenant_of(exchange.request())); !forgotten)
    return reply_missing(exchange, forgotten.error());
  reply_json(exchange,
             nlohmann::ordered_json{{"object", "feature.deleted"}, {"id", id->hex()}, {"deleted", true}}.dump());
}

void VisionServer::get_info(Exchange& exchange) const {
  const VisionSideInfo info = side_.info();
  nlohmann::ordered_json out;
  out["object"] = "vision.info";
  out["model"] = info.model;
  out["version"] = options_.version;
  out["vision_digest"] = info.vision_digest.hex();
  out["preprocess_digest"] = info.preprocess_digest.hex();
  out["hidden_size"] = info.hidden_size;
  const PreprocessorConfig& preprocessor = info.preprocessor;
  out["preprocessor"] = {
      {"min_pixels", preprocessor.min_pixels}, {"max_pixels", preprocessor.max_pixels},
      {"patch_size", preprocessor.patch_size}, {"temporal_patch_size", preprocessor.temporal_patch_size},
      {"merge_size", preprocessor.merge_size}, {"image_mean", preprocessor.image_mean},
      {"image_std", preprocessor.image_std}};
  out["limits"] = {{"max_body", options_.max_body},
                   {"max_megapixels", static_cast<double>(info.limits.max_pixels) / 1e6},
                   {"max_frames", options_.max_frames},
                   {"max_picture_tokens", info.max_picture_tokens}};
  reply_json(exchange, out.dump());
}

}  // namespace chiasm
