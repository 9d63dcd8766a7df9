// config.json. Fields that only matter to training, or to code that is not here, are still checked for their type:
// a file in which they are wrong is damaged.
#include "models/config.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "models/fields.h"

namespace chiasm {
namespace {

// Generous: the largest published model is far below, and products of any three stay far below 2^63.
constexpr std::int64_t kMaxWidth = 1 << 18;
constexpr std::int64_t kMaxLayers = 1 << 10;
constexpr std::int64_t kMaxHeads = 1 << 12;
constexpr std::int64_t kMaxVocabulary = 1 << 24;
constexpr std::int64_t kMaxPositions = 1 << 28;
constexpr std::int64_t kMaxPatch = 256;
constexpr std::uint64_t kMaxConfigFile = 4 << 20;

// What the older files call "torch_dtype", the newer ones call "dtype".
Result<std::string> read_dtype(Fields& fields) {
  for (const std::string_view key : {"torch_dtype", "dtype"}) {
    ASSIGN_OR_RETURN(std::string dtype, fields.text_or(key, ""));
    if (dtype.empty()) continue;
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16")
      return fields.fail_at(Code::kUnimplemented, key,
                            fmt::format("expected float32, bfloat16 or float16, got '{}'", dtype));
    (void)fields.find("dtype");
    return dtype;
  }
  return std::string();
}

Status expect_model_type(Fields& fields, std::string_view family) {
  ASSIGN_OR_RETURN(const std::string type, fields.text_or("model_type", family));
  if (type != family && type != fmt::format("{}_text", family) && type != fmt::format("{}_vision", family))
    return fields.fail_at(Code::kInvalidArgument, "model_type",
                          fmt::format("expected a part of '{}', got '{}'", family, type));
  return {};
}

Status read_windows(Fields& fields, VisionConfig& out) {
  ASSIGN_OR_RETURN(out.window_size, fields.integer_or("window_size", 1, 1 << 14, 0));
  if (out.window_size % (out.patch_size * out.spatial_merge_size) != 0)
    return fields.fail_at(Code::kInvalidArgument, "window_size",
                          fmt::format("expected a multiple of patch_size x spatial_merge_size = {}, got {}",
                                      out.patch_size * out.spatial_merge_size, out.window_size));
  if (const auto list = fields.find("fullatt_block_indexes")) {
    ASSIGN_OR_RETURN(const std::vector<JsonValue> indexes, list->elements());
    for (const JsonValue& index : indexes) {
      ASSIGN_OR_RETURN(const std::int64_t block, index.integer(0, out.depth - 1));
      out.fullatt_block_indexes.push_back(block);
    }
  }
  ASSIGN_OR_RETURN(out.tokens_per_second, fields.number_or("tokens_per_second", 1e-3, 1e3, 0));
  return {};
}

// Widths inside and behind the encoder, in either family's words.
Status read_widths(Fields& fields, VisionConfig& out) {
  if (fields.find("embed_dim")) {
    ASSIGN_OR_RETURN(out.embed_dim, fields.integer("embed_dim", 1, kMaxWidth));
    ASSIGN_OR_RETURN(out.hidden_size, fields.integer("hidden_size", 1, kMaxWidth));
    ASSIGN_OR_RETURN(const double ratio, fields.number_or("mlp_ratio", 1, 64, 4));  // 4 in some files, 4.0 in others
    if (ratio != std::floor(ratio))
      return fields.fail_at(Code::kUnimplemented, "mlp_ratio", fmt::format("expected a whole number, got {}", ratio));
    out.mlp_ratio = static_cast<std::int64_t>(ratio);
    out.intermediate_size = out.embed_dim * out.mlp_ratio;
    return {};
  }
  if (!fields.find("out_hidden_size"))
    return fields.fail_at(Code::kNotFound, "embed_dim", "is missing (and 'out_hidden_size' too): expected an integer");
  ASSIGN_OR_RETURN(out.embed_dim, fields.integer("hidden_size", 1, kMaxWidth));
  ASSIGN_OR_RETURN(out.hidden_size, fields.integer("out_hidden_size", 1, kMaxWidth));
  ASSIGN_OR_RETURN(out.intermediate_size, fields.integer("intermediate_size", 1, kMaxWidth));
  out.mlp_ratio = 0;
  return {};
}

// What newer files say of the encoder's rotary embedding, which is fixed: nothing that turns otherwise would be right.
Status expect_fixed_rope(Fields& fields, std::vector<std::string>& unread) {
  constexpr double kTheta = 10000;
  const auto object = fields.find("rope_parameters");
  if (!object) return {};
  ASSIGN_OR_RETURN(Fields rope, Fields::of(*object));
  ASSIGN_OR_RETURN(const double theta, rope.number_or("rope_theta", 0, 1e12, kTheta));
  if (theta != kTheta)
    return rope.fail_at(Code::kUnimplemented, "rope_theta", fmt::format("expected {}, got {}", kTheta, theta));
  for (const std::string_view key : {"type", "rope_type"}) {
    ASSIGN_OR_RETURN(const std::string type, rope.text_or(key, "default"));
    if (type != "default")
      return rope.fail_at(Code::kUnimplemented, key, fmt::format("expected default, got '{}'", type));
  }
  rope.append_unread("vision_config.rope_parameters.", unread);
  return {};
}

Result<VisionConfig> read_vision(Fields& fields, const std::string& family, std::vector<std::string>& unread) {
  VisionConfig out;
  RETURN_IF_ERROR(expect_model_type(fields, family));
  RETURN_IF_ERROR(read_dtype(fields));
  RETURN_IF_ERROR(fields.expect_number("initializer_range", 0, 1e3));
  ASSIGN_OR_RETURN(out.depth, fields.integer("depth", 1, kMaxLayers));
  RETURN_IF_ERROR(read_widths(fields, out));
  ASSIGN_OR_RETURN(out.num_heads, fields.integer("num_heads", 1, kMaxHeads));
  // Both names may stand in one file: "in_chans" from the hub, "in_channels" added when it was saved again.
  for (const std::string_view key : {"in_channels", "in_chans"}) {
    ASSIGN_OR_RETURN(out.in_channels, fields.integer_or(key, 1, 64, 3));
    if (out.in_channels != 3)
      return fields.fail_at(Code::kUnimplemented, key, fmt::format("expected 3 (RGB), got {}", out.in_channels));
  }
  ASSIGN_OR_RETURN(out.patch_size, fields.integer_or("patch_size", 1, kMaxPatch, 14));
  ASSIGN_OR_RETURN(const std::int64_t spatial_patch_size,
                   fields.integer_or("spatial_patch_size", 1, kMaxPatch, out.patch_size));
  if (spatial_patch_size != out.patch_size)
    return fields.fail_at(Code::kInvalidArgument, "spatial_patch_size",
                          fmt::format("expected patch_size = {}, got {}", out.patch_size, spatial_patch_size));
  ASSIGN_OR_RETURN(out.spatial_merge_size, fields.integer_or("spatial_merge_size", 1, 16, 2));
  ASSIGN_OR_RETURN(out.temporal_patch_size, fields.integer_or("temporal_patch_size", 1, 16, 2));
  ASSIGN_OR_RETURN(out.hidden_act, fields.text_or("hidden_act", "quick_gelu"));
  if (out.hidden_act != "quick_gelu" && out.hidden_act != "silu")
    return fields.fail_at(Code::kUnimplemented, "hidden_act",
                          fmt::format("expected quick_gelu or silu, got '{}'", out.hidden_act));
  RETURN_IF_ERROR(read_windows(fields, out));
  RETURN_IF_ERROR(expect_fixed_rope(fields, unread));
  // Half of a head's rotary pairs turn with the row, half with the column.
  if (out.embed_dim % out.num_heads != 0 || out.head_dim() % 4 != 0)
    return fields.fail_at(
        Code::kInvalidArgument, "num_heads",
        fmt::format("expected {} heads to divide the width {} into multiples of 4", out.num_heads, out.embed_dim));
  return out;
}

Status expect_plain_rope(Fields& rope) {
  for (const std::string_view key : {"type", "rope_type"}) {
    ASSIGN_OR_RETURN(const std::string type, rope.text_or(key, "mrope"));
    if (type != "mrope" && type != "default")
      return rope.fail_at(Code::kUnimplemented, key, fmt::format("expected mrope or default, got '{}'", type));
  }
  return {};
}

// `rope_scaling` (older files) or `rope_parameters` (newer ones, with rope_theta inside).
Status read_rope(Fields& fields, TextConfig& out, std::string_view prefix, std::vector<std::string>& unread) {
  constexpr double kLeast = 1, kMost = 1e12;
  ASSIGN_OR_RETURN(out.rope_theta, fields.number_or("rope_theta", kLeast, kMost, 1e6));
  std::string_view key;
  for (const std::string_view name : {"rope_scaling", "rope_parameters"}) {
    const auto object = fields.find(name);
    if (!object) continue;
    key = name;
    ASSIGN_OR_RETURN(Fields rope, Fields::of(*object));
    RETURN_IF_ERROR(expect_plain_rope(rope));
    ASSIGN_OR_RETURN(out.rope_theta, rope.number_or("rope_theta", kLeast, kMost, out.rope_theta));
    const auto section = rope.find("mrope_section");
    if (!section) return rope.fail_at(Code::kNotFound, "mrope_section", "is missing, expected three integers");
    ASSIGN_OR_RETURN(const std::vector<JsonValue> parts, section->elements());
    if (parts.size() != out.mrope_section.size())
      return rope.fail_at(Code::kInvalidArgument, "mrope_section",
                          fmt::format("expected three integers, got {}", parts.size()));
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      ASSIGN_OR_RETURN(out.mrope_section[i], parts[i].integer(0, kMaxWidth));
      sum += out.mrope_section[i];
    }
    if (2 * sum != out.head_dim())
      return rope.fail_at(Code::kInvalidArgument, "mrope_section",
                          fmt::format("expected a sum of head_dim / 2 = {}/2, got {}", out.head_dim(), sum));
    rope.append_unread(fmt::format("{}{}.", prefix, name), unread);
  }
  if (key.empty())
    return fields.fail_at(Code::kNotFound, "rope_scaling", "is missing, expected an object with mrope_section");
  return {};
}

Status expect_full_attention(Fields& fields) {
  ASSIGN_OR_RETURN(const bool sliding, fields.boolean_or("use_sliding_window", false));
  if (sliding)
    return fields.fail_at(Code::kUnimplemented, "use_sliding_window",
                          "sliding-window attention is not supported: expected false");
  // Without effect once use_sliding_window is false.
  RETURN_IF_ERROR(fields.expect_number("sliding_window", 0, kMaxPositions));
  RETURN_IF_ERROR(fields.expect_number("max_window_layers", 0, kMaxLayers));
  const auto layer_types = fields.find("layer_types");
  if (!layer_types) return {};
  ASSIGN_OR_RETURN(const std::vector<JsonValue> layers, layer_types->elements());
  for (const JsonValue& layer : layers) {
    ASSIGN_OR_RETURN(const std::string_view type, layer.string());
    if (type != "full_attention")
      return fail(Code::kUnimplemented, "{}: expected full_attention, got '{}'", layer.where(), type);
  }
  return {};
}

Result<TextConfig> read_text(Fields& fields, std::string_view prefix, std::vector<std::string>& unread) {
  TextConfig out;
  ASSIGN_OR_RETURN(out.hidden_size, fields.integer("hidden_size", 1, kMaxWidth));
  ASSIGN_OR_RETURN(out.intermediate_size, fields.integer("intermediate_size", 1, kMaxWidth));
  ASSIGN_OR_RETURN(out.num_hidden_layers, fields.integer("num_hidden_layers", 1, kMaxLayers));
  ASSIGN_OR_RETURN(out.num_attention_heads, fields.integer("num_attention_heads", 1, kMaxHeads));
  ASSIGN_OR_RETURN(out.num_key_value_heads,
                   fields.integer_or("num_key_value_heads", 1, kMaxHeads, out.num_attention_heads));
  ASSIGN_OR_RETURN(out.vocab_size, fields.integer("vocab_size", 1, kMaxVocabulary));
  ASSIGN_OR_RETURN(out.max_position_embeddings, fields.integer("max_position_embeddings", 1, kMaxPositions));
  ASSIGN_OR_RETURN(out.rms_norm_eps, fields.number("rms_norm_eps", 1e-30, 1));
  ASSIGN_OR_RETURN(out.hidden_act, fields.text_or("hidden_act", "silu"));
  if (out.hidden_act != "silu")
    return fields.fail_at(Code::kUnimplemented, "hidden_act", fmt::format("expected silu, got '{}'", out.hidden_act));
  if (out.hidden_size % out.num_attention_heads != 0)
    return fields.fail_at(
        Code::kInvalidArgument, "num_attention_heads",
        fmt::format("expected a divisor of hidden_size = {}, got {}", out.hidden_size, out.num_attention_heads));
  if (out.num_attention_heads % out.num_key_value_heads != 0)
    return fields.fail_at(Code::kInvalidArgument, "num_key_value_heads",
                          fmt::format("expected a divisor of num_attention_heads = {}, got {}", out.num_attention_heads,
                                      out.num_key_value_heads));
  ASSIGN_OR_RETURN(const std::int64_t head_dim, fields.integer_or("head_dim", 1, kMaxWidth, out.head_dim()));
  if (head_dim != out.head_dim())
    return fields.fail_at(
        Code::kUnimplemented, "head_dim",
        fmt::format("expected hidden_size / num_attention_heads = {}, got {}", out.head_dim(), head_dim));
  RETURN_IF_ERROR(read_rope(fields, out, prefix, unread));
  RETURN_IF_ERROR(expect_full_attention(fields));
  RETURN_IF_ERROR(fields.expect_number("attention_dropout", 0, 1));
  RETURN_IF_ERROR(fields.expect_number("initializer_range", 0, 1e3));
  RETURN_IF_ERROR(fields.expect_boolean("use_cache"));
  return out;
}

// Token ids: absent ones that a prompt cannot do without get transformers' defaults (configuration_qwen2_vl.py).
Status read_tokens(Fields& top, Fields* nested, ModelConfig& out) {
  struct Token {
    std::string_view key;
    std::int64_t* id;
    std::int64_t fallback;
  };
  const Token tokens[] = {{"bos_token_id", &out.bos_token_id, -1},
                          {"eos_token_id", &out.eos_token_id, -1},
                          {"vision_token_id", &out.vision_token_id, -1},
                          {"vision_start_token_id", &out.vision_start_token_id, 151652},
                          {"vision_end_token_id", &out.vision_end_token_id, 151653},
                          {"image_token_id", &out.image_token_id, 151655},
                          {"video_token_id", &out.video_token_id, 151656}};
  const std::int64_t last = out.text.vocab_size - 1;
  for (const auto& [key, id, fallback] : tokens) {
    if (nested != nullptr) {
      ASSIGN_OR_RETURN(*id, nested->integer_or(key, 0, last, fallback));
    } else {
      *id = fallback;
    }
    ASSIGN_OR_RETURN(*id, top.integer_or(key, 0, last, *id));
    if (*id > last)
      return top.fail_at(
          Code::kNotFound, key,
          fmt::format("is missing, and its default {} is not below vocab_size = {}", fallback, out.text.vocab_size));
  }
  const std::int64_t distinct[] = {out.vision_start_token_id, out.vision_end_token_id, out.image_token_id,
                                   out.video_token_id};
  for (std::size_t i = 0; i < std::size(distinct); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (distinct[i] == distinct[j])
        return top.fail_at(Code::kInvalidArgument,
                           i < 2   ? "vision_end_token_id"
                           : i < 3 ? "image_token_id"
                                   : "video_token_id",
                           fmt::format("expected an id of its own, got {} again", distinct[i]));
  return {};
}

}  // namespace

Result<ModelConfig> parse_model_config(std::string_view text, std::string source) {
  ModelConfig out;
  out.source = source;
  ASSIGN_OR_RETURN(const Json json, Json::parse(text, std::move(source)));
  ASSIGN_OR_RETURN(Fields top, Fields::of(json.root()));
  ASSIGN_OR_RETURN(out.model_type, top.text("model_type"));
  if (out.model_type != "qwen2_vl" && out.model_type != "qwen2_5_vl")
    return top.fail_at(Code::kUnimplemented, "model_type",
                       fmt::format("expected qwen2_vl or qwen2_5_vl, got '{}'", out.model_type));
  if (const auto list = top.find("architectures")) {
    ASSIGN_OR_RETURN(const std::vector<JsonValue> names, list->elements());
    for (const JsonValue& name : names) {
      ASSIGN_OR_RETURN(const std::string_view architecture, name.string());
      out.architectures.emplace_back(architecture);
    }
  }

  const auto text_value = top.find("text_config");
  std::optional<Fields> nested;
  if (text_value) {
    ASSIGN_OR_RETURN(nested, Fields::of(*text_value));
    RETURN_IF_ERROR(expect_model_type(*nested, out.model_type));
  }
  Fields& text_fields = nested ? *nested : top;
  const std::string_view prefix = nested ? "text_config." : "";
  ASSIGN_OR_RETURN(out.text, read_text(text_fields, prefix, out.unread_fields));
  ASSIGN_OR_RETURN(out.torch_dtype, read_dtype(top));
  bool tied = false;
  if (nested) {
    ASSIGN_OR_RETURN(const std::string nested_dtype, read_dtype(*nested));
    if (out.torch_dtype.empty()) out.torch_dtype = nested_dtype;
    ASSIGN_OR_RETURN(tied, nested->boolean_or("tie_word_embeddings", false));
  }
  // transformers 5 ties where either says so.
  ASSIGN_OR_RETURN(const bool top_tied, top.boolean_or("tie_word_embeddings", false));
  out.text.tie_word_embeddings = top_tied || tied;
  RETURN_IF_ERROR(read_tokens(top, nested ? &*nested : nullptr, out));
  RETURN_IF_ERROR(top.expect_text("transformers_version"));

  const auto vision_value = top.find("vision_config");
  if (!vision_value) return top.fail_at(Code::kNotFound, "vision_config", "is missing, expected an object");
  ASSIGN_OR_RETURN(Fields vision, Fields::of(*vision_value));
  ASSIGN_OR_RETURN(out.vision, read_vision(vision, out.model_type, out.unread_fields));
  if (out.vision.hidden_size != out.text.hidden_size)
    return fail(Code::kInvalidArgument, "{}: features are {} wide, the language model is {} wide",
                vision_value->where(), out.vision.hidden_size, out.text.hidden_size);

  top.append_unread("", out.unread_fields);
  if (nested) nested->append_unread("text_config.", out.unread_fields);
  vision.append_unread("vision_config.", out.unread_fields);
  return out;
}

Result<ModelConfig> load_model_config(const std::filesystem::path& dir) {
  const std::string path = (dir / "config.json").string();
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxConfigFile));
  return parse_model_config(text, path);
}

Status check_runnable(const ModelConfig& config, const std::string& source) {
  if (config.model_type != "qwen2_vl")
    return fail(Code::kUnimplemented,
                "{}: field 'model_type': '{}' is a valid model, but not supported yet: expected qwen2_vl", source,
                config.model_type);
  const VisionConfig& vision = config.vision;
  if (vision.window_size != 0 || vision.mlp_ratio == 0 || vision.hidden_act != "quick_gelu")
    return fail(Code::kUnimplemented,
                "{}: field 'vision_config': a '{}' model with windows or a gated MLP is not supported: expected "
                "mlp_ratio, hidden_act quick_gelu and no window_size",
                source, config.model_type);
  return {};
}

}  // namespace chiasm
