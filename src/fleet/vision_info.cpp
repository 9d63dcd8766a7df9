#include "fleet/vision_info.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "models/fields.h"

namespace chiasm {
namespace {

constexpr std::string_view kObject = "vision.info";
constexpr std::size_t kMaxName = 256;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 40;  // as in preprocessor_config.json
constexpr std::int64_t kMaxWidth = 1 << 20;
constexpr std::int64_t kMaxBody = std::int64_t{1} << 40;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;

Result<std::string> read_name(Fields& fields, std::string_view key) {
  ASSIGN_OR_RETURN(std::string text, fields.text(key));
  if (text.size() > kMaxName)
    return fields.fail_at(Code::kInvalidArgument, key,
                          fmt::format("expected at most {} bytes, got {}", kMaxName, text.size()));
  return text;
}

Result<Digest> read_digest(Fields& fields, std::string_view key) {
  ASSIGN_OR_RETURN(const std::string text, fields.text(key));
  const auto digest = Digest::from_hex(text);
  if (!digest) return fields.fail_at(Code::kInvalidArgument, key, digest.error().message);
  return *digest;
}

Result<Fields> read_object(Fields& fields, std::string_view key) {
  const auto value = fields.find(key);
  if (!value) return fields.fail_at(Code::kNotFound, key, "is missing, expected an object");
  return Fields::of(*value);
}

Result<std::array<double, 3>> read_triple(Fields& fields, std::string_view key, double low, double high) {
  const auto list = fields.find(key);
  if (!list) return fields.fail_at(Code::kNotFound, key, "is missing, expected three numbers");
  ASSIGN_OR_RETURN(const std::vector<JsonValue> values, list->elements());
  std::array<double, 3> out{};
  if (values.size() != out.size())
    return fields.fail_at(Code::kInvalidArgument, key, fmt::format("expected three numbers, got {}", values.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSIGN_OR_RETURN(out[i], number_between(values[i], low, high));
  }
  return out;
}

// The same bounds as for preprocessor_config.json, but every field must be there: a default of ours is not what the
// other side uses.
Result<PreprocessorConfig> read_preprocessor(Fields fields) {
  PreprocessorConfig out;
  ASSIGN_OR_RETURN(out.min_pixels, fields.integer("min_pixels", 1, kMaxPixels));
  ASSIGN_OR_RETURN(out.max_pixels, fields.integer("max_pixels", 1, kMaxPixels));
  ASSIGN_OR_RETURN(out.patch_size, fields.integer("patch_size", 1, 256));
  ASSIGN_OR_RETURN(out.temporal_patch_size, fields.integer("temporal_patch_size", 1, 16));
  ASSIGN_OR_RETURN(out.merge_size, fields.integer("merge_size", 1, 16));
  ASSIGN_OR_RETURN(out.image_mean, read_triple(fields, "image_mean", -1e3, 1e3));
  ASSIGN_OR_RETURN(out.image_std, read_triple(fields, "image_std", 1e-6, 1e3));
  if (out.min_pixels > out.max_pixels)
    return fields.fail_at(Code::kInvalidArgument, "min_pixels",
                          fmt::format("expected at most max_pixels = {}, got {}", out.max_pixels, out.min_pixels));
  const std::int64_t side = out.patch_size * out.merge_size;
  if (out.max_pixels < side * side)
    return fields.fail_at(
        Code::kInvalidArgument, "max_pixels",
        fmt::format("expected room for one merged patch, {} pixels, got {}", side * side, out.max_pixels));
  return out;
}

}  // namespace

Digest VisionInfo::preprocess_digest_with(std::optional<std::int64_t> min_pixels,
                                          std::optional<std::int64_t> max_pixels) const {
  PreprocessorConfig config = preprocessor;
  config.min_pixels = min_pixels.value_or(config.min_pixels);
  config.max_pixels = max_pixels.value_or(config.max_pixels);
  return config.digest();
}

Result<VisionInfo> parse_vision_info(std::string_view text, std::string source) {
  ASSIGN_OR_RETURN(const Json json, Json::parse(text, std::move(source)));
  ASSIGN_OR_RETURN(Fields fields, Fields::of(json.root()));
  ASSIGN_OR_RETURN(const std::string object, read_name(fields, "object"));
  if (object != kObject)
    return fields.fail_at(Code::kInvalidArgument, "object", fmt::format("expected '{}', got '{}'", kObject, object));

  VisionInfo out;
  ASSIGN_OR_RETURN(out.model, read_name(fields, "model"));
  ASSIGN_OR_RETURN(out.version, read_name(fields, "version"));
  ASSIGN_OR_RETURN(out.vision_digest, read_digest(fields, "vision_digest"));
  ASSIGN_OR_RETURN(out.preprocess_digest, read_digest(fields, "preprocess_digest"));
  ASSIGN_OR_RETURN(out.hidden_size, fields.integer("hidden_size", 1, kMaxWidth));
  ASSIGN_OR_RETURN(Fields preprocessor, read_object(fields, "preprocessor"));
  ASSIGN_OR_RETURN(out.preprocessor, read_preprocessor(std::move(preprocessor)));
  ASSIGN_OR_RETURN(Fields limits, read_object(fields, "limits"));
  ASSIGN_OR_RETURN(const std::int64_t max_body, limits.integer("max_body", 1, kMaxBody));
  out.limits.max_body = static_cast<std::uint64_t>(max_body);
  ASSIGN_OR_RETURN(out.limits.max_megapixels, limits.number("max_megapixels", 1e-6, 1e6));
  ASSIGN_OR_RETURN(out.limits.max_picture_tokens, limits.integer("max_picture_tokens", 1, kMaxTokens));

  if (const Digest computed = out.preprocessor.digest(); computed != out.preprocess_digest)
    return fields.fail_at(Code::kDataLoss, "preprocess_digest",
                          fmt::format("expected {}, the digest of the preprocessor given, got {}", computed.hex(),
                                      out.preprocess_digest.hex()));
  return out;
}

std::string vision_info_json(const VisionInfo& info) {
  const PreprocessorConfig& preprocessor = info.preprocessor;
  const nlohmann::ordered_json json = {
      {"object", kObject},
      {"model", info.model},
      {"version", info.version},
      {"vision_digest", info.vision_digest.hex()},
      {"preprocess_digest", info.preprocess_digest.hex()},
      {"hidden_size", info.hidden_size},
      {"preprocessor",
       {{"min_pixels", preprocessor.min_pixels},
        {"max_pixels", preprocessor.max_pixels},
        {"patch_size", preprocessor.patch_size},
        {"temporal_patch_size", preprocessor.temporal_patch_size},
        {"merge_size", preprocessor.merge_size},
        {"image_mean", preprocessor.image_mean},
        {"image_std", preprocessor.image_std}}},
      {"limits",
       {{"max_body", info.limits.max_body},
        {"max_megapixels", info.limits.max_megapixels},
        {"max_picture_tokens", info.limits.max_picture_tokens}}},
  };
  // A model's name is a folder's, which may be no UTF-8.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace chiasm
