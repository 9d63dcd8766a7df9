// What a checkpoint folder says about itself: config.json, preprocessor_config.json (or processor_config.json),
// generation_config.json.
//
// Fields are named as in the files. Every field is checked for type, range and agreement with the others, so that model
// code may trust them. Thread contract: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/result.h"

namespace chiasm {

// `vision_config`, in the words of Qwen2-VL. Qwen2.5-VL files say `hidden_size` for embed_dim and `out_hidden_size` for
// hidden_size; they are read into the same two fields.
struct VisionConfig {
  std::int64_t depth = 0;
  std::int64_t embed_dim = 0;    // width inside the encoder
  std::int64_t hidden_size = 0;  // width of the features: the language model's
  std::int64_t num_heads = 0;
  std::int64_t mlp_ratio = 4;          // 0 where the file gives intermediate_size
  std::int64_t intermediate_size = 0;  // embed_dim * mlp_ratio, or as the file says
  std::int64_t in_channels = 3;        // "in_chans" in published files, "in_channels" in files of newer transformers
  std::int64_t patch_size = 14;
  std::int64_t spatial_merge_size = 2;
  std::int64_t temporal_patch_size = 2;
  std::string hidden_act = "quick_gelu";
  // Window attention: pixels on a window's side, 0 for full attention in every block, and the blocks without windows.
  std::int64_t window_size = 0;
  std::vector<std::int64_t> fullatt_block_indexes;
  double tokens_per_second = 0;  // temporal positions a second of video; 0 where positions count frames

  std::int64_t head_dim() const { return embed_dim / num_heads; }
  std::int64_t patch_width() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
  std::int64_t merge_unit() const { return spatial_merge_size * spatial_merge_size; }  // patches in a feature row

  bool operator==(const VisionConfig&) const = default;
};

// The language model's fields, at the top of config.json or nested under `text_config`.
struct TextConfig {
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e6;
  std::array<std::int64_t, 3> mrope_section{};  // rotary pairs for time, height, width; they sum to head_dim / 2
  bool tie_word_embeddings = false;
  std::string hidden_act = "silu";

  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }

  bool operator==(const TextConfig&) const = default;
};

struct ModelConfig {
  std::string model_type;  // "qwen2_vl" or "qwen2_5_vl"
  std::vector<std::string> architectures;
  VisionConfig vision;
  TextConfig text;
  std::int64_t bos_token_id = -1, eos_token_id = -1;
  std::int64_t vision_start_token_id = -1, vision_end_token_id = -1, vision_token_id = -1;
  std::int64_t image_token_id = -1, video_token_id = -1;
  std::string torch_dtype;  // informative: tensors say their own
  std::string source;       // the file it was read from, for errors
  // Fields of the file that this program does not know ("a", "vision_config.b"): shown to the user, without effect.
  std::vector<std::string> unread_fields;
};

// preprocessor_config.json, or `image_processor` of processor_config.json.
struct PreprocessorConfig {
  std::int64_t min_pixels = 56 * 56;
  std::int64_t max_pixels = 28 * 28 * 1280;
  std::int64_t patch_size = 14;
  std::int64_t temporal_patch_size = 2;
  std::int64_t merge_size = 2;
  std::array<double, 3> image_mean{0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> image_std{0.26862954, 0.26130258, 0.27577711};

  std::vector<std::string> unread_fields;  // as in ModelConfig

  // Names everything that changes pixel_values.
  Digest digest() const;
  bool operator==(const PreprocessorConfig&) const = default;
};

// generation_config.json; absent fields keep transformers' defaults.
struct GenerationConfig {
  std::vector<std::int64_t> eos_token_id;  // one number or a list in the file
  std::optional<std::int64_t> pad_token_id;
  bool do_sample = false;
  double temperature = 1.0;
  std::int64_t top_k = 50;  // 0: off
  double top_p = 1.0;
  double repetition_penalty = 1.0;
  std::vector<std::string> unread_fields;  // as in ModelConfig
};

// The image settings of a folder, and the file they are from, for errors.
struct PreprocessorFile {
  std::string source;
  PreprocessorConfig config;
};

// Each reads DIR/<file>. load_generation_config takes eos_token_id from `config` when the file is absent. Image
// settings lie in `image_processor` of processor_config.json (transformers 5 saves them there, and looks there first),
// or in preprocessor_config.json.
Result<ModelConfig> load_model_config(const std::filesystem::path& dir);
Result<PreprocessorConfig> load_preprocessor_config(const std::filesystem::path& dir);  // kNotFound: no such settings
// The same, for who can do without: nothing where neither file has them.
Result<std::optional<PreprocessorFile>> find_preprocessor_config(const std::filesystem::path& dir);
Result<GenerationConfig> load_generation_config(const std::filesystem::path& dir, const ModelConfig& config);

// A config.json that parses may still describe a model that the code here does not run (Qwen2.5-VL): kUnimplemented,
// naming the model type. Checkpoint::open asks this.
Status check_runnable(const ModelConfig& config, const std::string& source);

// The two files must agree on patches; otherwise grids and weights do not fit together.
Status check_agreement(const VisionConfig& vision, const PreprocessorConfig& preprocessor, const std::string& source);

// The parsers behind them, for tests and fuzzing. `source` names the text in errors.
Result<ModelConfig> parse_model_config(std::string_view text, std::string source);
Result<PreprocessorConfig> parse_preprocessor_config(std::string_view text, std::string source);
// processor_config.json: nothing where it has no `image_processor`, as older files do not.
Result<std::optional<PreprocessorConfig>> parse_processor_config(std::string_view text, std::string source);
Result<GenerationConfig> parse_generation_config(std::string_view text, std::string source, const ModelConfig& config);

}  // namespace chiasm
