#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/inspect.h"
#include "app/pictures.h"
#include "models/checkpoint.h"
#include "models/matrix_precision.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

struct TensorLine {
  std::string name, shape;
  std::string_view dtype;
  std::int64_t count = 1;  // layers that have it
};

// One part of a checkpoint, from the headers of its files.
struct PartSummary {
  std::vector<TensorLine> tensors;
  std::int64_t parameters = 0;
  std::uint64_t bytes = 0;   // as stored
  std::uint64_t memory = 0;  // loaded: matrices as stored, biases and norms in f32
  std::uint64_t memory_int8 = 0, memory_int4 = 0, memory_fp8 = 0;  // the same with --precision
  Precision precision = Precision::kExact;                         // of the matrices as stored
  std::map<std::string, std::int64_t> dtypes;                      // tensors of each
};

// A matrix [rows, depth] in integers.
std::uint64_t integer_bytes(std::int64_t rows, std::int64_t depth, Precision precision) {
  const IntegerFormat format = integer_format(precision);
  return static_cast<std::uint64_t>(rows * (format.row_bytes(depth) + 2 * format.groups(depth)));
}

// In fp8.
std::uint64_t fp8_bytes(std::int64_t rows, std::int64_t depth) {
  return static_cast<std::uint64_t>(rows * (fp8_row_bytes(depth) + static_cast<std::int64_t>(sizeof(float))));
}

Result<PartSummary> summarize(const Checkpoint& checkpoint, Role side) {
  PartSummary out;
  out.precision = checkpoint.precision(side);
  for (const std::string& name : checkpoint.names()) {
    ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.tensor(name));
    ASSIGN_OR_RETURN(std::int64_t count, element_count(tensor.shape));
    out.tensors.push_back({name, shape_text(tensor.shape), dtype_name(tensor.dtype)});
    if (checkpoint.precision_of(name) != Precision::kExact) {
      ASSIGN_OR_RETURN(const QuantisedTensor matrix, checkpoint.quantised(name));
      count = matrix.values.shape[0] * matrix.depth;
    }
    if (tensor.shape.size() > 1) {
      const std::int64_t rows = tensor.shape[0], depth = count / rows;
      const auto bytes_in = [&](Precision language) {
        return integer_bytes(rows, depth, precision_for(name, tensor.shape, Precision::kInt8, language));
      };
      out.memory_int8 += bytes_in(Precision::kInt8);
      out.memory_int4 += bytes_in(Precision::kInt4);
      out.memory_fp8 += fp8_bytes(rows, depth);
    } else {
      for (std::uint64_t* const bytes : {&out.memory_int8, &out.memory_int4, &out.memory_fp8})
        *bytes += static_cast<std::uint64_t>(count) * sizeof(float);
    }
    if (!name.ends_with("_scales")) out.parameters += count;
    out.bytes += tensor.bytes.size();
    out.memory += tensor.shape.size() > 1 ? tensor.bytes.size() : static_cast<std::uint64_t>(count) * sizeof(float);
    ++out.dtypes[std::string(dtype_name(tensor.dtype))];
  }
  return out;
}

// "visual.blocks.7.norm1.weight" of all layers as "visual.blocks.*.norm1.weight", where shape and dtype agree.
std::vector<TensorLine> one_line_a_kind(const std::vector<TensorLine>& tensors) {
  std::vector<TensorLine> out;
  for (TensorLine line : tensors) {
    for (const std::string_view stack : {".blocks.", ".layers."}) {
      const std::size_t found = line.name.find(stack);
      if (found == std::string::npos) continue;
      const std::size_t begin = found + stack.size();
      const std::size_t end = line.name.find('.', begin);
      if (end != std::string::npos) line.name.replace(begin, end - begin, "*");
    }
    const auto same = std::find_if(out.begin(), out.end(), [&](const TensorLine& other) {
      return other.name == line.name && other.shape == line.shape && other.dtype == line.dtype;
    });
    if (same == out.end()) {
      out.push_back(std::move(line));
    } else {
      ++same->count;
    }
  }
  return out;
}

// Floats held while a picture of 1024 patches is encoded: its pixel values, and per patch the residual, query, key and
// value, what attention gives, and the widest hidden values. An estimate: buffers of the kernels come on top.
constexpr std::int64_t kEstimatePatches = 1024;
std::uint64_t vision_working_bytes(const VisionConfig& config) {
  const std::int64_t per_patch = config.patch_width() + config.embed_dim * 6 + config.intermediate_size;
  const std::int64_t features = kEstimatePatches / config.merge_unit() * config.hidden_size;
  return static_cast<std::uint64_t>(kEstimatePatches * per_patch + features) * sizeof(float);
}

std::uint64_t kv_bytes_per_token(const TextConfig& config) {
  return static_cast<std::uint64_t>(2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim()) *
         sizeof(float);
}

struct Summary {
  std::string kind;  // "checkpoint", "vision", "language"
  ModelConfig config;
  std::vector<std::string> files;
  std::optional<PartSummary> vision, language;
  std::optional<PreprocessorConfig> preprocessor;
  Digest vision_digest;
};

Result<Summary> read_summary(const fs::path& dir) {
  Summary out;
  ASSIGN_OR_RETURN(const std::vector<WeightFile> files, find_weight_files(dir));
  bool has_vision = false, has_language = false;
  for (const WeightFile& file : files) {
    out.files.push_back(file.path.filename().string());
    has_vision |= file.has_vision;
    has_language |= file.has_language;
  }
  ASSIGN_OR_RETURN(out.config, load_model_config(dir));
  if (has_vision) {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, Role::kVision));
    ASSIGN_OR_RETURN(out.vision, summarize(checkpoint, Role::kVision));
  }
  if (has_language) {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, Role::kLanguage));
    out.config.text = checkpoint.config().text;  // with what the tensors say about a tied lm_head
    ASSIGN_OR_RETURN(out.language, summarize(checkpoint, Role::kLanguage));
  }
  if (!has_vision && !has_language)
    return fail(Code::kFailedPrecondition, "{}: the weight files hold neither vision nor language tensors",
                dir.string());
  out.kind = has_vision && has_language ? "checkpoint" : has_vision ? "vision" : "language";
  ASSIGN_OR_RETURN(std::optional<PreprocessorFile> preprocessor, find_preprocessor_config(dir));
  if (preprocessor) out.preprocessor = std::move(preprocessor->config);
  ASSIGN_OR_RETURN(out.vision_digest, vision_digest_of(dir));
  return out;
}

nlohmann::ordered_json to_json(const PartSummary& part, bool all) {
  nlohmann::ordered_json out;
  out["tensors"] = part.tensors.size();
  out["parameters"] = part.parameters;
  out["bytes"] = part.bytes;
  out["dtypes"] = part.dtypes;
  out["precision"] = precision_name(part.precision);
  out["shapes"] = nlohmann::ordered_json::array();
  for (const TensorLine& line : all ? part.tensors : one_line_a_kind(part.tensors))
    out["shapes"].push_back({{"name", line.name},
                             {"shape", nlohmann::ordered_json::parse(line.shape)},
                             {"dtype", line.dtype},
                             {"count", line.count}});
  return out;
}

void print_json(Console& console, const fs::path& dir, const Summary& summary, const InspectOptions& options) {
  const VisionConfig& eye = summary.config.vision;
  const TextConfig& text = summary.config.text;
  nlohmann::ordered_json out;
  out["path"] = dir.string();
  out["kind"] = summary.kind;
  out["model_type"] = summary.config.model_type;
  out["files"] = summary.files;
  out["vision_digest"] = summary.vision_digest.hex();
  if (summary.preprocessor) out["preprocess_digest"] = summary.preprocessor->digest().hex();
  out["parts"] = nlohmann::ordered_json::object();
  out["memory"] = nlohmann::ordered_json::object();
  if (summary.vision) {
    out["parts"]["vision"] = to_json(*summary.vision, options.tensors);
    out["parts"]["vision"]["config"] = {{"depth", eye.depth},
                                        {"embed_dim", eye.embed_dim},
                                        {"num_heads", eye.num_heads},
                                        {"hidden_size", eye.hidden_size},
                                        {"patch_size", eye.patch_size},
                                        {"spatial_merge_size", eye.spatial_merge_size},
                                        {"temporal_patch_size", eye.temporal_patch_size}};
    out["memory"]["vision"] = {{"weights_bytes", summary.vision->memory},
                               {"weights_bytes_int8", summary.vision->memory_int8},
                               {"weights_bytes_fp8", summary.vision->memory_fp8},
                               {"estimated_working_bytes_1024_patches", vision_working_bytes(eye)}};
  }
  if (summary.language) {
    out["parts"]["language"] = to_json(*summary.language, options.tensors);
    out["parts"]["language"]["config"] = {{"num_hidden_layers", text.num_hidden_layers},
                                          {"hidden_size", text.hidden_size},
                                          {"intermediate_size", text.intermediate_size},
                                          {"num_attention_heads", text.num_attention_heads},
                                          {"num_key_value_heads", text.num_key_value_heads},
                                          {"vocab_size", text.vocab_size},
                                          {"max_position_embeddings", text.max_position_embeddings},
                                          {"mrope_section", text.mrope_section},
                                          {"tie_word_embeddings", text.tie_word_embeddings}};
    out["memory"]["language"] = {{"weights_bytes", summary.language->memory},
                                 {"weights_bytes_int8", summary.language->memory_int8},
                                 {"weights_bytes_int4", summary.language->memory_int4},
                                 {"weights_bytes_fp8", summary.language->memory_fp8},
                                 {"kv_bytes_per_token", kv_bytes_per_token(text)}};
  }
  out["unread_fields"] = summary.config.unread_fields;
  console.line("{}", json_text(out));
}

// What the weights take in memory, also where --precision rounds them.
std::string memory_text(const PartSummary& part, bool int4) {
  const auto size = [](std::uint64_t bytes) { return readable_bytes(static_cast<double>(bytes)); };
  std::string out = size(part.memory);
  if (part.precision != Precision::kExact) return out + fmt::format(" ({})", precision_name(part.precision));
  out += fmt::format(" ({} with --precision int8", size(part.memory_int8));
  if (int4) out += fmt::format(", {} with int4", size(part.memory_int4));
  return out + fmt::format(", {} with fp8 on a card)", size(part.memory_fp8));
}

void print_part(Console& console, std::string_view name, const PartSummary& part, const InspectOptions& options) {
  std::string dtypes;
  for (const auto& [dtype, count] : part.dtypes) dtypes += fmt::format(", {} {}", count, dtype);
  console.line("\n{}: {} parameters in {} tensors ({}), {}", console.strong(name), part.parameters, part.tensors.size(),
               dtypes.substr(2), readable_bytes(static_cast<double>(part.bytes)));
  for (const TensorLine& line : options.tensors ? part.tensors : one_line_a_kind(part.tensors))
    console.line("  {:<46} {:<20} {}{}", line.name, line.shape, line.dtype,
                 line.count > 1 ? fmt::format("  x {}", line.count) : "");
}

void print_text(Console& console, const fs::path& dir, const Summary& summary, const InspectOptions& options) {
  const VisionConfig& eye = summary.config.vision;
  const TextConfig& text = summary.config.text;
  console.line(
      "{}: {}, {}", console.strong(dir.string()), summary.config.model_type,
      summary.kind == "checkpoint" ? "a whole checkpoint" : "the " + summary.kind + " half of a split checkpoint");
  std::string files;
  for (const std::string& file : summary.files) files += " " + file;
  console.line("files             {}", files);
  console.line("vision digest      {}", summary.vision_digest.hex());
  if (summary.preprocessor) {
    console.line("preprocess digest  {}", summary.preprocessor->digest().hex());
    console.line("pictures           {} to {} pixels, patches of {} x {}, {} x {} patches a feature row",
                 summary.preprocessor->min_pixels, summary.preprocessor->max_pixels, eye.patch_size, eye.patch_size,
                 eye.spatial_merge_size, eye.spatial_merge_size);
  } else if (summary.vision) {
    console.line(
        "pictures           none can be looked at: preprocessor_config.json (or processor_config.json) is absent");
  }
  if (!summary.config.unread_fields.empty()) {
    std::string fields;
    for (const std::string& field : summary.config.unread_fields) fields += " " + field;
    console.line("without effect    {}  (fields of config.json)", fields);
  }
  if (summary.vision) {
    print_part(console, "vision", *summary.vision, options);
    console.line("  {} blocks of width {}, {} heads; features of width {}", eye.depth, eye.embed_dim, eye.num_heads,
                 eye.hidden_size);
    console.line(
        "  memory: weights {}, and about {} to encode a picture of {} patches (an estimate; it grows linearly)",
        memory_text(*summary.vision, false), readable_bytes(static_cast<double>(vision_working_bytes(eye))),
        kEstimatePatches);
  }
  if (summary.language) {
    print_part(console, "language", *summary.language, options);
    console.line(
        "  {} layers of width {}, {} heads on {} key-value heads, {} tokens known, at most {} in a conversation",
        text.num_hidden_layers, text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.vocab_size,
        text.max_position_embeddings);
    console.line("  memory: weights {}, and {} of KV a token", memory_text(*summary.language, true),
                 readable_bytes(static_cast<double>(kv_bytes_per_token(text))));
  }
}

}  // namespace

int inspect_checkpoint(const fs::path& dir, const InspectOptions& options, Console& console) {
  console.progress("reading the vision tensors");
  const Result<Summary> summary = read_summary(dir);
  if (!summary) return console.fault(summary.error());
  (options.json ? print_json : print_text)(console, dir, *summary, options);
  return kExitSuccess;
}

}  // namespace chiasm
