#include "models/config.h"

#include <cstdlib>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "models/checkpoint.h"
#include "models/test_checkpoint.h"

namespace chiasm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

Result<ModelConfig> parse(const json& config) { return parse_model_config(config.dump(), "config.json"); }
std::string error_of(const json& config) {
  const auto out = parse(config);
  return out ? "no error" : out.error().message;
}

// Fields that are checked but kept nowhere, and why nothing is lost.
const std::map<std::string, std::string> kWithoutEffect{
    {"attention_dropout", "training only"},
    {"initializer_range", "training only"},
    {"max_window_layers", "counts for sliding windows only, and use_sliding_window is false"},
    {"sliding_window", "counts for sliding windows only, and use_sliding_window is false"},
    {"use_sliding_window", "always false: true is refused"},
    {"transformers_version", "says who wrote the file"},
    {"use_cache", "a switch of the reference's generate(); there is always a cache here"},
    {"rope_scaling.type", "always mrope or default: others are refused"},
    {"rope_scaling.rope_type", "always mrope or default: others are refused"},
    {"layer_types", "all full_attention: others are refused"},
    {"text_config.model_type", "a part of the model's: others are refused"},
    {"vision_config.model_type", "a part of the model's: others are refused"},
    {"vision_config.initializer_range", "training only"},
    {"vision_config.rope_parameters.rope_theta", "always 10000: another value is refused"},
    {"vision_config.rope_parameters.rope_type", "always default: others are refused"},
    {"vision_config.spatial_patch_size", "equals patch_size: another value is refused"},
    {"processor_class", "a Python class name"},
    {"image_processor_type", "a Python class name"},
    {"bos_token_id", "of generation_config.json: a prompt's first token comes from the template"},
};

// What the parser kept, by the file's own words.
std::map<std::string, json> kept(const ModelConfig& c) {
  std::map<std::string, json> out{{"model_type", c.model_type},
                                  {"architectures", c.architectures},
                                  {"torch_dtype", c.torch_dtype},
                                  {"bos_token_id", c.bos_token_id},
                                  {"eos_token_id", c.eos_token_id},
                                  {"vision_start_token_id", c.vision_start_token_id},
                                  {"vision_end_token_id", c.vision_end_token_id},
                                  {"vision_token_id", c.vision_token_id},
                                  {"image_token_id", c.image_token_id},
                                  {"video_token_id", c.video_token_id},
                                  {"hidden_size", c.text.hidden_size},
                                  {"intermediate_size", c.text.intermediate_size},
                                  {"num_hidden_layers", c.text.num_hidden_layers},
                                  {"num_attention_heads", c.text.num_attention_heads},
                                  {"num_key_value_heads", c.text.num_key_value_heads},
                                  {"vocab_size", c.text.vocab_size},
                                  {"max_position_embeddings", c.text.max_position_embeddings},
                                  {"rms_norm_eps", c.text.rms_norm_eps},
                                  {"rope_theta", c.text.rope_theta},
                                  {"rope_scaling.mrope_section", c.text.mrope_section},
                                  {"tie_word_embeddings", c.text.tie_word_embeddings},
                                  {"hidden_act", c.text.hidden_act},
                                  {"vision_config.depth", c.vision.depth},
                                  {"vision_config.num_heads", c.vision.num_heads},
                                  {"vision_config.in_chans", c.vision.in_channels},
                                  {"vision_config.patch_size", c.vision.patch_size},
                                  {"vision_config.spatial_merge_size", c.vision.spatial_merge_size},
                                  {"vision_config.temporal_patch_size", c.vision.temporal_patch_size},
                                  {"vision_config.hidden_act", c.vision.hidden_act}};
  if (c.model_type == "qwen2_vl") {
    out["vision_config.embed_dim"] = c.vision.embed_dim;
    out["vision_config.hidden_size"] = c.vision.hidden_size;
    out["vision_config.mlp_ratio"] = c.vision.mlp_ratio;
  } else {
    out["vision_config.hidden_size"] = c.vision.embed_dim;
    out["vision_config.out_hidden_size"] = c.vision.hidden_size;
    out["vision_config.intermediate_size"] = c.vision.intermediate_size;
    out["vision_config.window_size"] = c.vision.window_size;
    out["vision_config.fullatt_block_indexes"] = c.vision.fullatt_block_indexes;
    out["vision_config.tokens_per_second"] = c.vision.tokens_per_second;
  }
  return out;
}

std::map<std::string, json> kept(const PreprocessorConfig& c) {
  return {{"min_pixels", c.min_pixels}, {"max_pixels", c.max_pixels},
          {"patch_size", c.patch_size}, {"temporal_patch_size", c.temporal_patch_size},
          {"merge_size", c.merge_size}, {"image_mean", c.image_mean},
          {"image_std", c.image_std}};
}

std::map<std::string, json> kept(const GenerationConfig& c) {
  return {{"eos_token_id", c.eos_token_id},
          {"pad_token_id", c.pad_token_id.value_or(-1)},
          {"do_sample", c.do_sample},
          {"temperature", c.temperature},
          {"top_k", c.top_k},
          {"top_p", c.top_p},
          {"repetition_penalty", c.repetition_penalty}};
}

// Every field of a file: dotted path and where it is. Objects are walked, arrays are one field.
std::map<std::string, json::json_pointer> fields_of(const json& at, const std::string& path = "",
                                                    const json::json_pointer& pointer = json::json_pointer()) {
  std::map<std::string, json::json_pointer> out;
  for (const auto& [key, value] : at.items()) {
    if (value.is_object()) {
      out.merge(fields_of(value, path + key + ".", pointer / key));
    } else {
      out.emplace(path + key, pointer / key);
    }
  }
  return out;
}

// A field of a newer file by the older files' name.
std::string older_name(std::string path) {
  if (path.starts_with("text_config.")) path = path.substr(12);
  if (path.starts_with("rope_parameters.")) path = "rope_scaling." + path.substr(16);
  const std::map<std::string, std::string> renamed{{"dtype", "torch_dtype"},
                                                   {"vision_config.in_channels", "vision_config.in_chans"},
                                                   {"rope_scaling.rope_theta", "rope_theta"}};
  const auto found = renamed.find(path);
  return found == renamed.end() ? path : found->second;
}

// A parser has read a file when it kept every field's value (or we know why not), and when it notices every field that
// has the wrong type.
template <class Parse>
void expect_every_field_read(const json& file, const std::string& name, const Parse& parse_text) {
  SCOPED_TRACE(name);
  const auto config = parse_text(file.dump());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->unread_fields, IsEmpty());
  const auto values = kept(*config);
  const auto fields = fields_of(file);
  EXPECT_GE(fields.size(), 6U);
  for (const auto& [path, pointer] : fields) {
    const json& value = file.at(pointer);
    const auto found = values.find(older_name(path));
    if (path != "text_config.model_type" && found != values.end()) {
      EXPECT_EQ(found->second, value) << path;
    } else {
      EXPECT_TRUE(kWithoutEffect.contains(path) || kWithoutEffect.contains(older_name(path)))
          << path << " is neither kept nor known to be without effect";
    }
    json broken = file;
    broken.at(pointer) = value.is_string() ? json(12345) : json("wrong");
    const auto refused = parse_text(broken.dump());
    ASSERT_FALSE(refused) << path << " has the wrong type and nobody noticed";
    EXPECT_THAT(refused.error().message, HasSubstr("field '" + path + "'"));
    for (std::size_t i = 0; value.is_array() && i < value.size(); ++i) {
      broken = file;
      broken.at(pointer / i) = value[i].is_string() ? json(12345) : json("wrong");
      const auto element = parse_text(broken.dump());
      ASSERT_FALSE(element) << path;
      EXPECT_THAT(element.error().message, HasSubstr(fmt::format("field '{}[{}]'", path, i)));
    }
  }
}

const auto kParseConfig = [](const std::string& text) { return parse_model_config(text, "config.json"); };
const auto kParsePreprocessor = [](const std::string& text) { return parse_preprocessor_config(text, "p.json"); };

json windowed_config() {
  json out = toy_config();
  out["model_type"] = "qwen2_5_vl";
  out["vision_config"] = {{"depth", 3},
                          {"hidden_act", "silu"},
                          {"hidden_size", 16},
                          {"num_heads", 2},
                          {"intermediate_size", 44},
                          {"in_chans", 3},
                          {"patch_size", 4},
                          {"out_hidden_size", 24},
                          {"spatial_merge_size", 2},
                          {"window_size", 16},
                          {"fullatt_block_indexes", {2}},
                          {"tokens_per_second", 2},
                          {"spatial_patch_size", 4},
                          {"temporal_patch_size", 2}};
  return out;
}

json toy_preprocessor() {
  return {{"min_pixels", 64},
          {"max_pixels", 1024},
          {"patch_size", 4},
          {"temporal_patch_size", 2},
          {"merge_size", 2},
          {"image_mean", {0.5, 0.25, 0.125}},
          {"image_std", {0.5, 0.75, 1.0}},
          {"image_processor_type", "Qwen2VLImageProcessor"},
          {"processor_class", "Qwen2VLProcessor"}};
}

json toy_generation() {
  return {{"bos_token_id", 1},
          {"pad_token_id", 3},
          {"do_sample", true},
          {"eos_token_id", {2, 1}},
          {"repetition_penalty", 1.05},
          {"temperature", 0.01},
          {"top_p", 0.001},
          {"top_k", 1},
          {"transformers_version", "4.37.0"}};
}

TEST(Config, EveryFieldIsReadAndChecked) {
  expect_every_field_read(toy_config(), "toy", kParseConfig);
  expect_every_field_read(toy_config_nested(), "nested", kParseConfig);
  expect_every_field_read(windowed_config(), "windowed", kParseConfig);
  expect_every_field_read(toy_preprocessor(), "preprocessor", kParsePreprocessor);
  const ModelConfig config = parse(toy_config()).value();
  expect_every_field_read(toy_generation(), "generation",
                          [&](const std::string& text) { return parse_generation_config(text, "g.json", config); });
}

TEST(Config, PublishedFilesAreReadInFull) {
  const std::filesystem::path dir = shared_dir() / "qwen2-vl-configs";
  if (!std::filesystem::exists(dir))
    GTEST_SKIP() << dir << " is not here: the published configurations are not committed";
  int configs = 0, preprocessors = 0, generations = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".json")) continue;
    const json file = json::parse(read_text_file(entry.path(), 1 << 20).value());
    if (name.ends_with(".preprocessor_config.json")) {
      expect_every_field_read(file, name, kParsePreprocessor);
      ++preprocessors;
    } else if (name.ends_with(".generation_config.json")) {
      ModelConfig config;
      config.text.vocab_size = 151936;
      expect_every_field_read(file, name, [&](const std::string& text) {
        return parse_generation_config(text, "generation_config.json", config);
      });
      ++generations;
    } else if (name.ends_with(".config.json")) {
      expect_every_field_read(file, name, kParseConfig);
      ++configs;
    }
  }
  EXPECT_EQ(configs, 5);
  EXPECT_EQ(preprocessors, 2);
  EXPECT_EQ(generations, 3);
}

TEST(Config, PublishedTensorListsAreExpected) {
  const std::filesystem::path dir = shared_dir() / "qwen2-vl-configs";
  if (!std::filesystem::exists(dir))
    GTEST_SKIP() << dir << " is not here: the published tensor lists are not committed";
  for (const std::string model : {"2B", "7B", "72B"}) {
    SCOPED_TRACE(model);
    const auto path = [&](const char* kind) { return dir / fmt::format("Qwen2-VL-{}-Instruct.{}.json", model, kind); };
    const auto config = parse_model_config(read_text_file(path("config"), 1 << 20).value(), "config.json");
    ASSERT_TRUE(config);
    const json published = json::parse(read_text_file(path("tensors"), 1 << 20).value());
    json expected = json::object();
    for (const auto& list : {expected_vision_tensors(config->vision), expected_language_tensors(config->text)})
      for (const auto& [name, shape] : list) {
        EXPECT_FALSE(expected.contains(name)) << name << " is listed twice";
        expected[name] = shape;
      }
    EXPECT_EQ(expected, published.at("tensors"));
  }
}

TEST(Config, TextFieldsMayBeNested) {
  const json flat = toy_config();
  const json nested = toy_config_nested();
  const auto a = parse(flat), b = parse(nested);
  ASSERT_TRUE(a && b) << error_of(nested);
  EXPECT_EQ(a->text, b->text);
  EXPECT_EQ(a->vision, b->vision);
  EXPECT_EQ(a->image_token_id, b->image_token_id);
  EXPECT_EQ(a->torch_dtype, b->torch_dtype);
  EXPECT_EQ(b->eos_token_id, 2);
  EXPECT_THAT(b->unread_fields, IsEmpty());
  json broken = nested;
  broken["text_config"]["hidden_size"] = "x";
  EXPECT_THAT(error_of(broken), HasSubstr("field 'text_config.hidden_size'"));
  broken = nested;
  broken["text_config"]["model_type"] = "llama";
  EXPECT_THAT(error_of(broken), HasSubstr("field 'text_config.model_type'"));
}

TEST(Config, TiedWhereEitherSaysSo) {
  for (const auto& [top, nested, tied] : {std::tuple<json, json, bool>{nullptr, nullptr, false},
                                          {false, false, false},
                                          {true, false, true},
                                          {false, true, true},
                                          {nullptr, true, true},
                                          {true, nullptr, true}}) {
    json config = toy_config_nested();
    config["tie_word_embeddings"] = top;
    config["text_config"]["tie_word_embeddings"] = nested;
    EXPECT_EQ(parse(config)->text.tie_word_embeddings, tied) << top << nested;
  }
}

TEST(Config, TheEncoderTurnsByTheUsualAnglesOnly) {
  json config = toy_config();
  const VisionConfig without = parse(config)->vision;
  json& rope = config["vision_config"]["rope_parameters"];
  for (const json& usual : {json::object(), json{{"rope_theta", 10000}}, json{{"rope_type", "default"}},
                            json{{"rope_theta", 10000.0}, {"type", "default"}}}) {
    rope = usual;
    ASSERT_TRUE(parse(config)) << error_of(config);
    EXPECT_EQ(parse(config)->vision, without);
    EXPECT_THAT(parse(config)->unread_fields, IsEmpty());
  }
  rope = {{"rope_theta", 20000}};
  EXPECT_THAT(error_of(config),
              HasSubstr("field 'vision_config.rope_parameters.rope_theta': expected 10000, got 20000"));
  EXPECT_EQ(parse(config).error().code, Code::kUnimplemented);
  rope = {{"rope_type", "yarn"}};
  EXPECT_THAT(error_of(config), HasSubstr("'vision_config.rope_parameters.rope_type': expected default, got 'yarn'"));
  rope = {{"factor", 2}};
  EXPECT_THAT(parse(config)->unread_fields, testing::ElementsAre("vision_config.rope_parameters.factor"));
}

TEST(Config, UnknownFieldsAreListed) {
  json config = toy_config();
  config["new_field"] = 1;
  config["vision_config"]["new_act"] = "x";
  config["rope_scaling"]["beta"] = 2;
  EXPECT_THAT(parse(config)->unread_fields,
              testing::UnorderedElementsAre("new_field", "vision_config.new_act", "rope_scaling.beta"));
}

struct Wrong {
  const char* pointer;
  json value;
  const char* message;
};

TEST(Config, ValuesThatCannotBeAreRefused) {
  const Wrong wrongs[] = {
      {"/model_type", "llama", "'model_type': expected qwen2_vl or qwen2_5_vl, got 'llama'"},
      {"/hidden_size", 0, "field 'hidden_size': expected an integer from 1"},
      {"/hidden_size", 1 << 30, "field 'hidden_size'"},
      {"/num_hidden_layers", 100000, "field 'num_hidden_layers'"},
      {"/num_attention_heads", 5, "expected a divisor of hidden_size = 24, got 5"},
      {"/num_key_value_heads", 4, "expected a divisor of num_attention_heads = 2, got 4"},
      {"/rope_scaling/mrope_section", {1, 2, 2}, "'rope_scaling.mrope_section': expected a sum of head_dim / 2 = 12/2"},
      {"/rope_scaling/mrope_section", {3, 3}, "expected three integers, got 2"},
      {"/rope_scaling/mrope_section/0", -2, "mrope_section[0]"},
      {"/rope_scaling/type", "yarn", "'rope_scaling.type': expected mrope or default, got 'yarn'"},
      {"/rope_scaling", nullptr, "'rope_scaling': is missing"},
      {"/rope_theta", 0, "field 'rope_theta'"},
      {"/rms_norm_eps", -1e-6, "field 'rms_norm_eps'"},
      {"/use_sliding_window", true, "'use_sliding_window': sliding-window attention is not supported"},
      {"/hidden_act", "gelu", "'hidden_act': expected silu, got 'gelu'"},
      {"/torch_dtype", "float8", "'torch_dtype': expected float32, bfloat16 or float16"},
      {"/image_token_id", 64, "field 'image_token_id': expected an integer from 0 to 63, got 64"},
      {"/image_token_id", -1, "field 'image_token_id'"},
      {"/image_token_id", nullptr, "its default 151655 is not below vocab_size = 64"},
      {"/video_token_id", 7, "'video_token_id': expected an id of its own, got 7 again"},
      {"/vision_config", nullptr, "'vision_config': is missing"},
      {"/vision_config", 3, "field 'vision_config'"},
      {"/vision_config/embed_dim", nullptr, "'vision_config.embed_dim': is missing"},
      {"/vision_config/hidden_size", 32, "features are 32 wide, the language model is 24 wide"},
      {"/vision_config/num_heads", 3, "'vision_config.num_heads': expected 3 heads to divide the width 16"},
      {"/vision_config/num_heads", 8, "into multiples of 4"},
      {"/vision_config/in_chans", 1, "'vision_config.in_chans': expected 3"},
      {"/vision_config/mlp_ratio", 2.5, "'vision_config.mlp_ratio': expected a whole number"},
      {"/vision_config/spatial_patch_size", 5, "expected patch_size = 4, got 5"},
      {"/vision_config/depth", 0, "field 'vision_config.depth'"},
      {"/vision_config/spatial_merge_size", 0, "field 'vision_config.spatial_merge_size'"},
      {"/vision_config/hidden_act", "relu", "'vision_config.hidden_act': expected quick_gelu or silu"},
  };
  for (const auto& [pointer, value, message] : wrongs) {
    json config = toy_config();
    config[json::json_pointer(pointer)] = value;
    EXPECT_THAT(error_of(config), HasSubstr(message)) << pointer << " = " << value;
  }
  for (const std::string_view text : {"", "[]", "3", "{}", "{\"model_type\":", "{\"model_type\": null}"})
    EXPECT_FALSE(parse_model_config(text, "config.json")) << text;
}

TEST(Config, ChannelsByEitherName) {
  json config = toy_config();
  config["vision_config"].erase("in_chans");
  config["vision_config"]["in_channels"] = 3;
  EXPECT_EQ(parse(config)->vision, parse(toy_config())->vision);
  config["vision_config"]["mlp_ratio"] = 2.0;
  EXPECT_EQ(parse(config)->vision.intermediate_size, 32);
}

TEST(Config, WindowedModelsParseButDoNotRun) {
  const auto config = parse(windowed_config());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->vision.embed_dim, 16);
  EXPECT_EQ(config->vision.hidden_size, 24);
  const Status status = check_runnable(*config, "m/config.json");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kUnimplemented);
  EXPECT_THAT(status.error().message, HasSubstr("m/config.json: field 'model_type': 'qwen2_5_vl' is a valid model"));
  EXPECT_TRUE(check_runnable(*parse(toy_config()), "config.json"));
  json mixed = toy_config();
  mixed["vision_config"]["window_size"] = 16;
  EXPECT_FALSE(check_runnable(parse(mixed).value(), "config.json"));
  json odd = windowed_config();
  odd["vision_config"]["window_size"] = 10;
  EXPECT_THAT(error_of(odd), HasSubstr("expected a multiple of"));
  odd = windowed_config();
  odd["vision_config"]["fullatt_block_indexes"] = {3};
  EXPECT_THAT(error_of(odd), HasSubstr("fullatt_block_indexes[0]"));
}

TEST(PreprocessorConfig, NewerSpelling) {
  json file = toy_preprocessor();
  file.erase("min_pixels");
  file.erase("max_pixels");
  file["size"] = {{"shortest_edge", 64}, {"longest_edge", 1024}};
  for (const char* key : {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}) file[key] = true;
  file["resample"] = 3;
  file["rescale_factor"] = 0.00392156862745098;
  const auto newer = kParsePreprocessor(file.dump()), older = kParsePreprocessor(toy_preprocessor().dump());
  ASSERT_TRUE(newer) << newer.error().message;
  EXPECT_EQ(*newer, *older);
  for (const auto& [key, value] : {std::pair<const char*, json>{"do_resize", false},
                                   {"resample", 2},
                                   {"rescale_factor", 1.0},
                                   {"do_normalize", false}}) {
    json other = file;
    other[key] = value;
    EXPECT_EQ(kParsePreprocessor(other.dump()).error().code, Code::kUnimplemented) << key;
  }
}

TEST(PreprocessorConfig, Checks) {
  const auto message = [](const char* key, const json& value) {
    json file = toy_preprocessor();
    file[key] = value;
    const auto out = kParsePreprocessor(file.dump());
    return out ? "no error" : out.error().message;
  };
  EXPECT_THAT(message("min_pixels", 2000), HasSubstr("'min_pixels': expected at most max_pixels = 1024"));
  EXPECT_THAT(message("patch_size", 100), HasSubstr("'max_pixels': expected room for one merged patch"));
  EXPECT_THAT(message("image_std", {1, 1, 0}), HasSubstr("'image_std[2]'"));
  EXPECT_THAT(message("image_mean", {1, 1}), HasSubstr("three numbers, got 2"));
  const PreprocessorConfig good = kParsePreprocessor(toy_preprocessor().dump()).value();
  VisionConfig vision = parse(toy_config())->vision;
  EXPECT_TRUE(check_agreement(vision, good, "p.json"));
  vision.spatial_merge_size = 4;
  EXPECT_THAT(check_agreement(vision, good, "p.json").error().message,
              HasSubstr("p.json: field 'merge_size': expected 4 as in config.json, got 2"));
}

// processor_config.json, as transformers 5 saves it.
json toy_processor() {
  json images = toy_preprocessor();
  images.erase("min_pixels");
  images.erase("max_pixels");
  images.erase("processor_class");
  images["size"] = {{"shortest_edge", 64}, {"longest_edge", 2048}};
  return {{"image_processor", images},
          {"processor_class", "Qwen2VLProcessor"},
          {"video_processor", {{"patch_size", 14}, {"do_resize", false}}}};
}

TEST(PreprocessorConfig, MayLieInProcessorConfig) {
  const auto message = [](const TemporaryFolder& folder) {
    const auto out = load_preprocessor_config(folder.path());
    return out ? "no error" : out.error().message;
  };
  TemporaryFolder folder;
  EXPECT_EQ(find_preprocessor_config(folder.path()).value(), std::nullopt);
  EXPECT_EQ(load_preprocessor_config(folder.path()).error().code, Code::kNotFound);
  EXPECT_THAT(message(folder),
              testing::AllOf(HasSubstr(folder.path().string()), HasSubstr("expected preprocessor_config.json, or "
                                                                          "processor_config.json with a field "
                                                                          "'image_processor'")));
  folder.write("processor_config.json", R"({"processor_class": "Qwen2VLProcessor"})");  // as transformers 4 does
  EXPECT_THAT(message(folder), HasSubstr("expected preprocessor_config.json, or processor_config.json"));
  folder.write("preprocessor_config.json", toy_preprocessor().dump());
  EXPECT_EQ(load_preprocessor_config(folder.path())->max_pixels, 1024);
  EXPECT_THAT(find_preprocessor_config(folder.path()).value()->source, testing::EndsWith("/preprocessor_config.json"));

  // Both: transformers 5 takes the nested one.
  folder.write("processor_config.json", toy_processor().dump());
  EXPECT_EQ(load_preprocessor_config(folder.path())->max_pixels, 2048);
  std::filesystem::remove(folder.path() / "preprocessor_config.json");
  const auto nested = find_preprocessor_config(folder.path());
  ASSERT_TRUE(nested && *nested) << message(folder);
  EXPECT_THAT((*nested)->source, testing::EndsWith("/processor_config.json"));
  EXPECT_THAT((*nested)->config.unread_fields, IsEmpty());
  json same = toy_preprocessor();
  same["max_pixels"] = 2048;
  EXPECT_EQ((*nested)->config, kParsePreprocessor(same.dump()).value());
  EXPECT_EQ((*nested)->config.digest(), kParsePreprocessor(same.dump())->digest());

  json broken = toy_processor();
  broken["image_processor"]["patch_size"] = "x";
  broken["image_processor"]["other"] = 1;
  folder.write("processor_config.json", broken.dump());
  EXPECT_THAT(message(folder), HasSubstr("processor_config.json: field 'image_processor.patch_size'"));
  broken["image_processor"]["patch_size"] = 4;
  broken["image_processor"]["size"]["width"] = 1;
  EXPECT_THAT(parse_processor_config(broken.dump(), "p").value()->unread_fields,
              testing::UnorderedElementsAre("image_processor.other", "image_processor.size.width"));
  folder.write("preprocessor_config.json", toy_preprocessor().dump());
  for (const char* text : {"{", "[]", R"({"image_processor": 3})"}) {  // damaged is not absent
    folder.write("processor_config.json", text);
    EXPECT_THAT(message(folder), HasSubstr("processor_config.json")) << text;
  }
}

TEST(PreprocessorConfig, DigestNamesEveryNumber) {
  const PreprocessorConfig base = kParsePreprocessor(toy_preprocessor().dump()).value();
  EXPECT_EQ(base.digest(), kParsePreprocessor(toy_preprocessor().dump())->digest());
  for (const auto& [key, value] : std::map<std::string, json>{{"min_pixels", 65},
                                                              {"max_pixels", 1025},
                                                              {"patch_size", 2},
                                                              {"temporal_patch_size", 1},
                                                              {"merge_size", 1},
                                                              {"image_mean", {0.5, 0.25, 0.126}},
                                                              {"image_std", {0.51, 0.75, 1.0}}}) {
    json file = toy_preprocessor();
    file[key] = value;
    EXPECT_NE(kParsePreprocessor(file.dump())->digest(), base.digest()) << key;
  }
  json file = toy_preprocessor();
  file["processor_class"] = "Other";
  EXPECT_EQ(kParsePreprocessor(file.dump())->digest(), base.digest());
}

TEST(GenerationConfig, DefaultsAndChecks) {
  const ModelConfig config = parse(toy_config()).value();
  const auto generation = [&](const std::string& text) { return parse_generation_config(text, "g.json", config); };
  const auto empty = generation("{}");
  ASSERT_TRUE(empty);
  EXPECT_EQ(empty->eos_token_id, std::vector<std::int64_t>{2});  // config.json's
  EXPECT_FALSE(empty->do_sample);
  EXPECT_EQ(empty->top_k, 50);
  EXPECT_EQ(generation(R"({"eos_token_id": 5})")->eos_token_id, std::vector<std::int64_t>{5});
  EXPECT_FALSE(generation(R"({"eos_token_id": 64})"));
  EXPECT_FALSE(generation(R"({"eos_token_id": [1, -1]})"));
  EXPECT_FALSE(generation(R"({"top_p": 1.5})"));
  EXPECT_FALSE(generation(R"({"temperature": -1})"));
  EXPECT_FALSE(generation(R"({"repetition_penalty": 0})"));
  EXPECT_FALSE(generation(R"({"top_k": -1})"));
  EXPECT_FALSE(generation("[]"));
  TemporaryFolder folder;
  EXPECT_EQ(load_generation_config(folder.path(), config)->eos_token_id, std::vector<std::int64_t>{2});
  folder.write("generation_config.json", toy_generation().dump());
  EXPECT_EQ(load_generation_config(folder.path(), config)->eos_token_id, (std::vector<std::int64_t>{2, 1}));
  folder.write("generation_config.json", "{");
  EXPECT_FALSE(load_generation_config(folder.path(), config));
}

}  // namespace
}  // namespace chiasm
