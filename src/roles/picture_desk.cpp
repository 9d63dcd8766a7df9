#include "roles/picture_desk.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "base/stopwatch.h"
#include "features/feature_file.h"
#include "tensor/npy.h"

namespace chiasm {
namespace {

// "detail": "low" of the OpenAI API: 512 x 512 pixels at most.
constexpr std::int64_t kLowDetail = 512 * 512;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

tl::unexpected<ApiError> refuse(ErrorKind kind, std::string message, std::string param) {
  return tl::unexpected(ApiError{kind, std::move(message), std::move(param)});
}

// A name for values that came with the request: it follows from them alone.
FeatureId content_id(const FeatureMeta& meta, ConstMatrixView rows) {
  Hasher hasher;
  hasher.add("kind", "values of a request").add("vision_digest", meta.vision_digest);
  for (const std::int64_t side : meta.grid_thw) hasher.add("grid_thw", side);
  hasher.add("width", rows.cols);
  for (std::int64_t row = 0; row < rows.rows; ++row)
    hasher.add("row", std::as_bytes(std::span(rows.row(row), static_cast<std::size_t>(rows.cols))));
  return {hasher.finish()};
}

}  // namespace

ApiError PictureDesk::vision_error(const Error& error, const std::string& param) {
  switch (error.code) {
    case Code::kUnavailable:
      return {ErrorKind::kVisionUnavailable,
              "No vision encoder answers at the moment; pictures that are already known still work.", param};
    case Code::kResourceExhausted:
      return {ErrorKind::kOverloaded, "The vision encoder has as many pictures waiting as it takes.", param};
    default: return api_error(error, param);
  }
}

LookRequest PictureDesk::request_of(const LookContext& context, ImageInput::Detail detail) const {
  LookRequest out;
  out.min_pixels = context.min_pixels;
  out.max_pixels = context.max_pixels;
  if (detail == ImageInput::Detail::kLow) {
    const std::int64_t least = context.min_pixels.value_or(eye_.preprocessor().min_pixels);
    const std::int64_t most = context.max_pixels.value_or(eye_.preprocessor().max_pixels);
    out.max_pixels = std::max(least, std::min(most, kLowDetail));
  }
  out.tenant = context.tenant;
  out.deadline = context.deadline;
  out.cancel = context.cancel;
  return out;
}

ApiResult<void> PictureDesk::check(const Sight& sight, const std::string& param) const {
  if (auto ok = check_feature(sight.feature->meta, options_.vision_digest, options_.accepted); !ok)
    return refuse(ErrorKind::kModelMismatch, ok.error().message, param);
  return {};
}

// Bounds that no picture can be scaled to are no picture's fault.
ApiResult<void> PictureDesk::check_bounds(const LookContext& context) const {
  const PreprocessorConfig& preprocessor = eye_.preprocessor();
  const std::int64_t least = context.min_pixels.value_or(preprocessor.min_pixels);
  const std::int64_t most = context.max_pixels.value_or(preprocessor.max_pixels);
  const std::int64_t side = preprocessor.patch_size * preprocessor.merge_size;
  const std::string param = std::string(context.bounds_in) +
                            (context.max_pixels && (least > most || most < side * side) ? "max_pixels" : "min_pixels");
  if (context.max_pixels && most < side * side)
    return refuse(ErrorKind::kInvalidRequest,
                  fmt::format("expected at least the {} pixels of one image token, got {}", side * side, most), param);
  if ((context.min_pixels || context.max_pixels) && least > most)
    return refuse(ErrorKind::kInvalidRequest,
                  fmt::format("expected min_pixels of at most max_pixels, got {} and {}{}", least, most,
                              context.min_pixels && context.max_pixels ? "" : ", one of them the model's own"),
                  param);
  return {};
}

ApiResult<std::string> PictureDesk::picture_bytes(const ImageInput& image, const LookContext& context) const {
  std::string out;
  if (image.kind == ImageInput::Kind::kUrl) {
    if (options_.media.domains.empty())
      return refuse(ErrorKind::kInvalidRequest,
                    "Picture URLs are not fetched by this server: send the picture as a data URI.", image.param);
    FetchRules rules = options_.media;
    rules.max_body = std::min(rules.max_body, options_.max_picture);
    auto response = fetch(client_, image.url, rules, sooner(context.deadline, options_.media_timeout), context.cancel);
    if (!response) {
      // What went wrong between here and a foreign host is the client's to know, not where that host lies.
      const Error& error = response.error();
      if (error.code == Code::kInvalidArgument) return refuse(ErrorKind::kInvalidRequest, error.message, image.param);
      const bool late = error.code == Code::kDeadlineExceeded && context.deadline <= std::chrono::steady_clock::now();
      if (error.code == Code::kCancelled || late) return tl::unexpected(api_error(error, image.param));
      return refuse(ErrorKind::kInvalidRequest,
                    error.code == Code::kResourceExhausted ? "The picture at this URL is larger than is fetched."
                                                           : "The picture at this URL could not be fetched.",
                    image.param);
    }
    if (response->status != 200)
      return refuse(ErrorKind::kInvalidRequest,
                    fmt::format("The picture's host answered {} instead of 200.", response->status), image.param);
    out = std::move(response->body);
  } else {
    out = image.bytes;
  }
  if (out.size() > options_.max_picture)
    return refuse(ErrorKind::kTooLarge,
                  fmt::format("expected a picture of at most {} bytes, got {}", options_.max_picture, out.size()),
                  image.param);
  return out;
}

// Like a feature of ours, but named by its content.
ApiResult<Sight> PictureDesk::feature_file(const ImageInput& image) const {
  const Stopwatch watch;
  auto feature = parse_feature(bytes_of(image.bytes), "feature file",
                               {.merge = config_.vision.spatial_merge_size, .width = config_.text.hidden_size});
  if (!feature) return refuse(ErrorKind::kInvalidRequest, feature.error().message, image.param);
  if (auto ok = check_feature(feature->meta, options_.vision_digest, options_.accepted); !ok)
    return refuse(ErrorKind::kModelMismatch, ok.error().message, image.param);
  feature->meta.id = content_id(feature->meta, feature->rows.view());
  return Sight{std::make_shared<const Feature>(std::move(*feature)), "request", watch.ms()};
}

ApiResult<Sight> PictureDesk::embeds(const ImageInput& image) const {
  const Stopwatch watch;
  const std::int64_t width = config_.text.hidden_size, merge = config_.vision.spatial_merge_size;
  auto grid = parse_npy(image.grid, 64);
  if (!grid) return refuse(ErrorKind::kInvalidRequest, "image_grid_thw: " + grid.error().message, image.param);
  const bool one = grid->shape == std::vector<std::int64_t>{3} || grid->shape == std::vector<std::int64_t>{1, 3};
  if (!one)
    return refuse(ErrorKind::kInvalidRequest, "image_grid_thw: expected the shape [3] or [1, 3]: one picture a part",
                  image.param);
  auto values = parse_npy(image.bytes, std::uint64_t{1} << 28);
  if (!values) return refuse(ErrorKind::kInvalidRequest, "image_embeds: " + values.error().message, image.param);
  std::vector<std::int64_t> shape = values->shape;
  if (shape.size() == 3 && shape[0] == 1) shape.erase(shape.begin());
  if (shape.size() != 2 || shape[1] != width)
    return refuse(ErrorKind::kInvalidRequest,
                  fmt::format("image_embeds: expected the shape [rows, {}] of this model's features", width),
                  image.param);
  Feature feature;
  for (std::size_t i = 0; i < 3; ++i) {
    const double side = grid->values[i];
    if (!(side >= 1 && side <= 1e6) || side != std::floor(side))
      return refuse(ErrorKind::kInvalidRequest, "image_grid_thw: expected whole numbers from 1 to 1000000",
                    image.param);
    feature.meta.grid_thw[i] = static_cast<std::int64_t>(side);
  }
  // Before the rows are copied: their number must be the grid's.
  if (auto ok = check_shape(feature.meta.grid_thw, shape[0], width, merge, width); !ok)
    return refuse(ErrorKind::kInvalidRequest, ok.error().message, image.param);
  auto rows = Matrix::create(shape[0], width);
  if (!rows) return tl::unexpected(api_error(rows.error(), image.param));
  std::transform(values->values.begin(), values->values.end(), rows->data(),
                 [](double value) { return static_cast<float>(value); });
  feature.rows = std::move(*rows);
  // Values without a digest are taken to be of the encoder that the language model belongs to, as their sender says.
  feature.meta.vision_digest = options_.vision_digest;
  if (auto ok = check_rows(feature.meta, feature.rows.view(), merge, width); !ok)
    return refuse(ErrorKind::kInvalidRequest, ok.error().message, image.param);
  feature.meta.id = content_id(feature.meta, feature.rows.view());
  return Sight{std::make_shared<const Feature>(std::move(feature)), "request", watch.ms()};
}

ApiResult<Sight> PictureDesk::look_at(const ContentPart& part, const LookContext& context) const {
  const ImageInput& first = part.images.front();
  switch (first.kind) {
    case ImageInput::Kind::kFeatures: return feature_file(first);
    case ImageInput::Kind::kEmbeds: return embeds(first);
    case ImageInput::Kind::kId: {
      const auto id = FeatureId::from_hex(first.id);
      if (!id) return refuse(ErrorKind::kInvalidRequest, id.error().message, first.param);
      auto sight = eye_.find(*id, context.tenant, context.deadline, context.cancel);
      if (sight) return std::move(*sight);
      if (sight.error().code == Code::kNotFound)
        return refuse(ErrorKind::kNotFound, "No picture is kept under this id: upload it again.", first.param);
      return tl::unexpected(vision_error(sight.error(), first.param));
    }
    case ImageInput::Kind::kData:
    case ImageInput::Kind::kUrl: break;
  }
  if (auto ok = check_bounds(context); !ok) return tl::unexpected(std::move(ok).error());
  std::vector<std::string> files;
  for (const ImageInput& frame : part.images) {
    auto bytes = picture_bytes(frame, context);
    if (!bytes) return tl::unexpected(std::move(bytes).error());
    files.push_back(std::move(*bytes));
  }
  std::vector<std::span<const std::byte>> views;
  views.reserve(files.size());
  for (const std::string& file : files) views.push_back(bytes_of(file));
  LookRequest request = request_of(context, first.detail);
  request.files = views;
  auto sight = eye_.look(request);
  // What a URL led to is not told to whoever named it: it may lie where only this server can look.
  if (!sight && sight.error().code == Code::kInvalidArgument && first.kind == ImageInput::Kind::kUrl)
    return refuse(ErrorKind::kInvalidRequest,
                  "What this URL leads to cannot be used: no picture of a kind that is read here, damaged, or beyond a "
                  "limit of this server.",
                  first.param);
  // Of a video the message says which frame.
  if (!sight) return tl::unexpected(vision_error(sight.error(), part.images.size() > 1 ? part.param : first.param));
  return std::move(*sight);
}

ApiResult<LookedPictures> PictureDesk::look(std::span<const ContentPart* const> parts,
                                            const LookContext& context) const {
  const Stopwatch watch;
  // All at once, so that new ones share a pass of the encoder.
  std::vector<std::optional<ApiResult<Sight>>> sights(parts.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < parts.size(); i = next++) {
      try {
        sights[i] = look_at(*parts[i], context);
      } catch (const std::exception&) {  // a thread's own: it must not end the program
        sights[i] =
            refuse(ErrorKind::kInternal, "The server has no memory for this picture at the moment.", parts[i]->param);
      }
    }
  };
  {
    const std::size_t helpers = std::min(parts.size(), static_cast<std::size_t>(options_.parallel));
    std::vector<std::jthread> threads;
    for (std::size_t t = 1; t < helpers; ++t) threads.emplace_back(work);
    work();
  }
  LookedPictures out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    ApiResult<Sight>& sight = *sights[i];
    if (!sight) return tl::unexpected(std::move(sight).error());
    out.uses.push_back({sight->feature->meta.id.hex(), sight->feature->rows.rows(), sight->source, sight->ms});
    (parts[i]->kind == ContentPart::Kind::kVideo ? out.videos : out.images).push_back(std::move(sight->feature));
  }
  out.ms = watch.ms();
  return out;
}

}  // namespace chiasm
