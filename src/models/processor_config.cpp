// preprocessor_config.json, processor_config.json and generation_config.json.
#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "models/config.h"
#include "models/fields.h"

namespace chiasm {
namespace {

constexpr std::string_view kPlainFile = "preprocessor_config.json", kNestedFile = "processor_config.json";
constexpr std::uint64_t kMaxConfigFile = 4 << 20;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 40;

Status read_triple(Fields& fields, std::string_view key, double low, double high, std::array<double, 3>& out) {
  const auto list = fields.find(key);
  if (!list) return {};
  ASSIGN_OR_RETURN(const std::vector<JsonValue> values, list->elements());
  if (values.size() != out.size())
    return fields.fail_at(Code::kInvalidArgument, key, fmt::format("expected three numbers, got {}", values.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSIGN_OR_RETURN(out[i], number_between(values[i], low, high));
  }
  return {};
}

// min_pixels and max_pixels, or what newer files say instead: size {shortest_edge, longest_edge}, in pixels all the
// same.
Status read_pixels(Fields& fields, PreprocessorConfig& out) {
  if (const auto object = fields.find("size")) {
    ASSIGN_OR_RETURN(Fields size, Fields::of(*object));
    for (const auto& [key, field] : {std::pair{"shortest_edge", &out.min_pixels},
                                     {"min_pixels", &out.min_pixels},
                                     {"longest_edge", &out.max_pixels},
                                     {"max_pixels", &out.max_pixels}}) {
      ASSIGN_OR_RETURN(*field, size.integer_or(key, 1, kMaxPixels, *field));
    }
    size.append_unread("size.", out.unread_fields);
  }
  ASSIGN_OR_RETURN(out.min_pixels, fields.integer_or("min_pixels", 1, kMaxPixels, out.min_pixels));
  ASSIGN_OR_RETURN(out.max_pixels, fields.integer_or("max_pixels", 1, kMaxPixels, out.max_pixels));
  if (out.min_pixels > out.max_pixels)
    return fields.fail_at(Code::kInvalidArgument, "min_pixels",
                          fmt::format("expected at most max_pixels = {}, got {}", out.max_pixels, out.min_pixels));
  return {};
}

// Switches whose other position would change pixel_values in a way that is not built.
Status expect_usual_steps(Fields& fields) {
  for (const std::string_view key : {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}) {
    ASSIGN_OR_RETURN(const bool on, fields.boolean_or(key, true));
    if (!on) return fields.fail_at(Code::kUnimplemented, key, "expected true, got false");
  }
  ASSIGN_OR_RETURN(const std::int64_t resample, fields.integer_or("resample", 0, 5, 3));
  if (resample != 3)
    return fields.fail_at(Code::kUnimplemented, "resample", fmt::format("expected 3 (bicubic), got {}", resample));
  ASSIGN_OR_RETURN(const double factor, fields.number_or("rescale_factor", 0, 1, 1.0 / 255));
  if (std::abs(factor * 255 - 1) > 1e-6)
    return fields.fail_at(Code::kUnimplemented, "rescale_factor", fmt::format("expected 1/255, got {}", factor));
  return {};
}

Result<PreprocessorConfig> read_preprocessor(JsonValue object, std::string_view prefix) {
  ASSIGN_OR_RETURN(Fields fields, Fields::of(object));
  PreprocessorConfig out;
  RETURN_IF_ERROR(read_pixels(fields, out));
  ASSIGN_OR_RETURN(out.patch_size, fields.integer_or("patch_size", 1, 256, out.patch_size));
  ASSIGN_OR_RETURN(out.temporal_patch_size, fields.integer_or("temporal_patch_size", 1, 16, out.temporal_patch_size));
  ASSIGN_OR_RETURN(out.merge_size, fields.integer_or("merge_size", 1, 16, out.merge_size));
  const std::int64_t factor = out.patch_size * out.merge_size;
  if (out.max_pixels < factor * factor)
    return fields.fail_at(
        Code::kInvalidArgument, "max_pixels",
        fmt::format("expected room for one merged patch, {} pixels, got {}", factor * factor, out.max_pixels));
  RETURN_IF_ERROR(read_triple(fields, "image_mean", -1e3, 1e3, out.image_mean));
  RETURN_IF_ERROR(read_triple(fields, "image_std", 1e-6, 1e3, out.image_std));
  RETURN_IF_ERROR(expect_usual_steps(fields));
  RETURN_IF_ERROR(fields.expect_text("image_processor_type"));
  RETURN_IF_ERROR(fields.expect_text("processor_class"));
  for (std::string& field : out.unread_fields) field.insert(0, prefix);
  fields.append_unread(prefix, out.unread_fields);
  return out;
}

}  // namespace

Result<PreprocessorConfig> parse_preprocessor_config(std::string_view text, std::string source) {
  ASSIGN_OR_RETURN(const Json json, Json::parse(text, std::move(source)));
  return read_preprocessor(json.root(), "");
}

Result<std::optional<PreprocessorConfig>> parse_processor_config(std::string_view text, std::string source) {
  ASSIGN_OR_RETURN(const Json json, Json::parse(text, std::move(source)));
  ASSIGN_OR_RETURN(Fields fields, Fields::of(json.root()));
  const auto images = fields.find("image_processor");
  if (!images) return std::nullopt;
  ASSIGN_OR_RETURN(PreprocessorConfig out, read_preprocessor(*images, "image_processor."));
  return out;
}

Digest PreprocessorConfig::digest() const {
  Hasher hasher;
  hasher.add("chiasm.preprocess", std::int64_t{1});
  hasher.add("min_pixels", min_pixels).add("max_pixels", max_pixels);
  hasher.add("patch_size", patch_size).add("temporal_patch_size", temporal_patch_size).add("merge_size", merge_size);
  for (const double mean : image_mean) hasher.add("image_mean", mean);
  for (const double std : image_std) hasher.add("image_std", std);
  return hasher.finish();
}

Result<std::optional<PreprocessorFile>> find_preprocessor_config(const std::filesystem::path& dir) {
  const std::string nested = (dir / kNestedFile).string(), plain = (dir / kPlainFile).string();
  const auto nested_text = read_text_file(nested, kMaxConfigFile);
  if (nested_text) {
    ASSIGN_OR_RETURN(auto config, parse_processor_config(*nested_text, nested));
    if (config) return PreprocessorFile{nested, *std::move(config)};
  } else if (nested_text.error().code != Code::kNotFound) {
    return tl::unexpected(nested_text.error());
  }
  const auto text = read_text_file(plain, kMaxConfigFile);
  if (!text && text.error().code == Code::kNotFound) return std::nullopt;
  if (!text) return tl::unexpected(text.error());
  ASSIGN_OR_RETURN(auto config, parse_preprocessor_config(*text, plain));
  return PreprocessorFile{plain, std::move(config)};
}

Result<PreprocessorConfig> load_preprocessor_config(const std::filesystem::path& dir) {
  ASSIGN_OR_RETURN(auto found, find_preprocessor_config(dir));
  if (found) return std::move(found->config);
  return fail(Code::kNotFound, "{}: no image settings: expected {}, or {} with a field 'image_processor'", dir.string(),
              kPlainFile, kNestedFile);
}

Status check_agreement(const VisionConfig& vision, const PreprocessorConfig& preprocessor, const std::string& source) {
  struct Pair {
    std::string_view name;
    std::int64_t config, preprocessor;
  };
  for (const auto& [name, ours, theirs] :
       {Pair{"patch_size", vision.patch_size, preprocessor.patch_size},
        Pair{"temporal_patch_size", vision.temporal_patch_size, preprocessor.temporal_patch_size},
        Pair{"merge_size", vision.spatial_merge_size, preprocessor.merge_size}})
    if (ours != theirs)
      return fail(Code::kFailedPrecondition, "{}: field '{}': expected {} as in config.json, got {}", source, name,
                  ours, theirs);
  return {};
}

Result<GenerationConfig> parse_generation_config(std::string_view text, std::string source, const ModelConfig& config) {
  ASSIGN_OR_RETURN(const Json json, Json::parse(text, std::move(source)));
  ASSIGN_OR_RETURN(Fields fields, Fields::of(json.root()));
  GenerationConfig out;
  const std::int64_t last = config.text.vocab_size - 1;
  if (const auto eos = fields.find("eos_token_id")) {
    if (eos->is_array()) {
      ASSIGN_OR_RETURN(const std::vector<JsonValue> ids, eos->elements());
      for (const JsonValue& id : ids) {
        ASSIGN_OR_RETURN(const std::int64_t number, id.integer(0, last));
        out.eos_token_id.push_back(number);
      }
    } else {
      ASSIGN_OR_RETURN(const std::int64_t number, eos->integer(0, last));
      out.eos_token_id.push_back(number);
    }
  } else if (config.eos_token_id >= 0) {
    out.eos_token_id.push_back(config.eos_token_id);
  }
  if (fields.find("pad_token_id")) {
    ASSIGN_OR_RETURN(out.pad_token_id, fields.integer("pad_token_id", 0, last));
  }
  RETURN_IF_ERROR(fields.integer_or("bos_token_id", 0, last, 0));
  RETURN_IF_ERROR(fields.expect_text("transformers_version"));
  ASSIGN_OR_RETURN(out.do_sample, fields.boolean_or("do_sample", out.do_sample));
  ASSIGN_OR_RETURN(out.temperature, fields.number_or("temperature", 0, 1e3, out.temperature));
  ASSIGN_OR_RETURN(out.top_k, fields.integer_or("top_k", 0, INT64_MAX, out.top_k));
  ASSIGN_OR_RETURN(out.top_p, fields.number_or("top_p", 0, 1, out.top_p));
  ASSIGN_OR_RETURN(out.repetition_penalty, fields.number_or("repetition_penalty", 1e-3, 1e3, out.repetition_penalty));
  fields.append_unread("", out.unread_fields);
  return out;
}

Result<GenerationConfig> load_generation_config(const std::filesystem::path& dir, const ModelConfig& config) {
  const std::string path = (dir / "generation_config.json").string();
  auto text = read_text_file(path, kMaxConfigFile);
  if (!text && text.error().code == Code::kNotFound) {
    GenerationConfig out;
    if (config.eos_token_id >= 0) out.eos_token_id.push_back(config.eos_token_id);
    return out;
  }
  if (!text) return tl::unexpected(std::move(text).error());
  return parse_generation_config(*text, path, config);
}

}  // namespace chiasm
