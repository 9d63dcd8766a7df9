// POST, GET and DELETE /v1/images: a picture is uploaded once, encoded ahead, and named by its id afterwards.
#include <utility>

#include "http/multipart.h"
#include "roles/language_server.h"
#include "roles/replies.h"

namespace chiasm {
namespace {

ImageRecord record_of(const Sight& sight) {
  ImageRecord out;
  out.id = sight.feature->meta.id.hex();
  for (std::size_t i = 0; i < 3; ++i) out.grid_thw[i] = sight.feature->meta.grid_thw[i];
  out.tokens = sight.feature->rows.rows();
  out.source = sight.source;
  out.ms = sight.ms;
  return out;
}

tl::unexpected<ApiError> refuse(std::string message, std::string param) {
  return tl::unexpected(ApiError{ErrorKind::kInvalidRequest, std::move(message), std::move(param)});
}

// "min_pixels" or "max_pixels", wherever it stands.
std::optional<std::int64_t>& bound_of(ImageUpload& upload, std::string_view name) {
  return name == "min_pixels" ? upload.min_pixels : upload.max_pixels;
}

ApiResult<std::int64_t> pixels_field(std::string_view text, const std::string& name) {
  std::int64_t out = 0;
  for (const char c : text) {
    if (c < '0' || c > '9' || out > (std::int64_t{1} << 40))
      return refuse("expected a whole number of pixels, got \"" + std::string(text.substr(0, 40)) + "\"", name);
    out = out * 10 + (c - '0');
  }
  if (out < 1) return refuse("expected at least 1 pixel", name);
  return out;
}

// The picture of a form: its part "image" or "file"; other fields are min_pixels and max_pixels.
ApiResult<ImageUpload> upload_of_form(std::string_view content_type, std::string_view body) {
  auto parts = parse_multipart(content_type, body);
  if (!parts) return refuse(parts.error().message, "");
  ImageUpload out;
  bool found = false;
  for (const FormPart& part : *parts) {
    if (part.name == "image" || part.name == "file") {
      if (found) return refuse("expected one picture, got several", part.name);
      out.image.kind = ImageInput::Kind::kData;
      out.image.bytes = part.bytes;
      out.image.param = part.name;
      found = true;
    } else if (part.name == "min_pixels" || part.name == "max_pixels") {
      auto pixels = pixels_field(part.bytes, part.name);
      if (!pixels) return tl::unexpected(std::move(pixels).error());
      bound_of(out, part.name) = *pixels;
    }
  }
  if (!found) return refuse("expected a part \"image\" with the picture's bytes", "image");
  return out;
}

// A form, JSON, or the picture's bytes whatever they are called: many clients name no type, or a wrong one.
ApiResult<ImageUpload> upload_of_body(Exchange& exchange, const RequestLimits& limits) {
  const HttpRequest& request = exchange.request();
  if (has_media_type(request, "multipart/form-data"))
    return upload_of_form(*request.headers.find("Content-Type"), request.body);
  const std::size_t first = request.body.find_first_not_of(" \t\r\n");
  const bool is_json = first != std::string::npos && (request.body[first] == '{' || request.body[first] == '[');
  if (is_json || has_media_type(request, "application/json")) return parse_image_upload(request.body, limits);
  ImageUpload out;
  out.image.kind = ImageInput::Kind::kData;
  out.image.bytes = exchange.take_body();
  out.image.param = "image";
  if (out.image.bytes.empty()) return refuse("expected a picture, got an empty body", "image");
  return out;
}

ApiResult<ImageUpload> upload_of(Exchange& exchange, const RequestLimits& limits) {
  auto out = upload_of_body(exchange, limits);
  if (!out) return out;
  for (const char* name : {"min_pixels", "max_pixels"}) {
    const auto value = exchange.request().query_value(name);
    if (!value) continue;
    auto pixels = pixels_field(*value, name);
    if (!pixels) return tl::unexpected(std::move(pixels).error());
    if (bound_of(*out, name)) return refuse("given twice, in the path and in the body", name);
    bound_of(*out, name) = *pixels;
  }
  if (out->image.kind == ImageInput::Kind::kFeatures || out->image.kind == ImageInput::Kind::kEmbeds)
    return tl::unexpected(ApiError{
        ErrorKind::kUnsupported,
        "Features and embeddings are not kept under an id: send them with the question about them.", out->image.param});
  return out;
}

ApiResult<FeatureId> id_of(const HttpRequest& request) {
  std::string text(request.capture("id"));
  for (char& c : text)
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  auto id = FeatureId::from_hex(text);
  if (!id) return refuse("expected an id of 64 hexadecimal digits, as POST /v1/images gives it", "id");
  return *id;
}

const ApiError kUnknownId{ErrorKind::kNotFound, "No picture is kept under this id: upload it again.", "id"};

}  // namespace

void LanguageServer::upload_image(Exchange& exchange) {
  auto upload = upload_of(exchange, options_.limits);
  if (!upload) return reply_error(exchange, upload.error());
  Answering answering(exchange);
  auto job = begin(exchange.request(), "", "image");
  if (!job) return reply_error(exchange, job.error());
  ContentPart part;
  part.kind = ContentPart::Kind::kImage;
  part.images.push_back(std::move(upload->image));
  auto sight = desk_.look_at(part, look_context(*job, upload->min_pixels, upload->max_pixels, "", answering.left()));
  if (!sight) {
    refused(*job, sight.error());
    return reply_error(exchange, sight.error());
  }
  serving_.looked(sight->source, sight->ms / 1e3, sight->feature->rows.rows());
  reply_json(exchange, image_json(record_of(*sight)));
}

void LanguageServer::show_image(Exchange& exchange) {
  const Answering answering(exchange);
  auto id = id_of(exchange.request());
  if (!id) return reply_error(exchange, id.error());
  auto sight = eye_.find(*id, tenant_of(exchange.request()), exchange.request().deadline, &answering.left());
  if (!sight)
    return reply_error(
        exchange, sight.error().code == Code::kNotFound ? kUnknownId : PictureDesk::vision_error(sight.error(), "id"));
  if (auto ok = desk_.check(*sight, "id"); !ok) return reply_error(exchange, ok.error());
  reply_json(exchange, image_json(record_of(*sight)));
}

void LanguageServer::forget_image(Exchange& exchange) {
  auto id = id_of(exchange.request());
  if (!id) return reply_error(exchange, id.error());
  auto status = eye_.forget(*id, tenant_of(exchange.request()), exchange.request().deadline);
  if (!status)
    return reply_error(exchange, status.error().code == Code::kNotFound
                                     ? kUnknownId
                                     : PictureDesk::vision_error(status.error(), "id"));
  reply_json(exchange, deleted_json(id->hex(), "image"));
}

}  // namespace chiasm
