#include "models/checkpoint.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/test_checkpoint.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

ModelConfig toy() { return parse_model_config(toy_config().dump(), "config.json").value(); }

std::vector<OwnedTensor> only(Part part, std::vector<OwnedTensor> tensors) {
  std::erase_if(tensors, [&](const OwnedTensor& tensor) { return part_of(canonical_name(tensor.name)) != part; });
  return tensors;
}

// The folder with config.json and one model.safetensors.
void write_whole(const TemporaryFolder& folder, const std::vector<OwnedTensor>& tensors,
                 const json& config = toy_config()) {
  folder.write("config.json", config.dump());
  write_weights(folder.path() / "model.safetensors", tensors);
}

void write_index(const TemporaryFolder& folder,
                 const std::vector<std::pair<std::string, std::vector<OwnedTensor>>>& files) {
  json map = json::object();
  for (const auto& [file, tensors] : files)
    for (const OwnedTensor& tensor : tensors) map[tensor.name] = file;
  folder.write("model.safetensors.index.json", json{{"metadata", {{"total_size", 0}}}, {"weight_map", map}}.dump());
}

void expect_bytes(const Checkpoint& checkpoint, const std::vector<OwnedTensor>& tensors) {
  EXPECT_EQ(checkpoint.names().size(), tensors.size());
  for (const OwnedTensor& tensor : tensors) {
    const auto view = checkpoint.tensor(canonical_name(tensor.name));
    ASSERT_TRUE(view) << view.error().message;
    EXPECT_EQ(view->shape, tensor.shape);
    EXPECT_EQ(view->dtype, tensor.dtype);
    EXPECT_TRUE(std::ranges::equal(view->bytes, tensor.bytes)) << tensor.name;
  }
}

std::string open_error(const TemporaryFolder& folder, Role role = Role::kWhole) {
  const auto out = Checkpoint::open(folder.path(), role);
  return out ? "no error" : out.error().message;
}

TEST(Names, AreCanonical) {
  EXPECT_EQ(canonical_name("model.visual.blocks.0.norm1.bias"), "visual.blocks.0.norm1.bias");
  EXPECT_EQ(canonical_name("model.language_model.layers.0.mlp.up_proj.weight"), "model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(canonical_name("model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(canonical_name("lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(part_of("visual.merger.ln_q.bias"), Part::kVision);
  EXPECT_EQ(part_of("model.visualise"), Part::kLanguage);
}

TEST(Checkpoint, OneFileEveryDtypeBothNameStyles) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    auto tensors = toy_tensors(toy(), dtype);
    for (const bool newer : {false, true}) {
      if (newer)
        for (auto& tensor : tensors) tensor.name = newer_name(tensor.name);
      TemporaryFolder folder;
      write_whole(folder, tensors, newer ? toy_config_nested() : toy_config());
      const auto whole = Checkpoint::open(folder.path(), Role::kWhole);
      ASSERT_TRUE(whole) << whole.error().message;
      expect_bytes(*whole, tensors);
      const auto vision = Checkpoint::open(folder.path(), Role::kVision);
      ASSERT_TRUE(vision) << vision.error().message;
      expect_bytes(*vision, only(Part::kVision, tensors));
      EXPECT_THAT(vision->tensor("model.norm.weight").error().message, HasSubstr("no tensor 'model.norm.weight'"));
      const auto language = Checkpoint::open(folder.path(), Role::kLanguage);
      ASSERT_TRUE(language) << language.error().message;
      expect_bytes(*language, only(Part::kLanguage, tensors));
    }
  }
}

TEST(Checkpoint, SeveralFilesWithoutAnIndex) {
  auto tensors = toy_tensors(toy());
  TemporaryFolder folder;
  folder.write("config.json", toy_config().dump());
  const auto middle = tensors.begin() + 20;
  write_weights(folder.path() / "a.safetensors", {tensors.begin(), middle});
  write_weights(folder.path() / "b.safetensors", {middle, tensors.end()});
  const auto checkpoint = Checkpoint::open(folder.path(), Role::kWhole);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  expect_bytes(*checkpoint, tensors);
}

// The other role's file need not even be there.
TEST(Checkpoint, ARoleOpensItsOwnFilesOnly) {
  const auto tensors = toy_tensors(toy());
  const auto vision = only(Part::kVision, tensors), language = only(Part::kLanguage, tensors);
  TemporaryFolder folder;
  folder.write("config.json", toy_config().dump());
  write_index(folder, {{"v.safetensors", vision}, {"l.safetensors", language}});
  write_weights(folder.path() / "v.safetensors", vision);
  const auto opened = Checkpoint::open(folder.path(), Role::kVision);
  ASSERT_TRUE(opened) << opened.error().message;
  expect_bytes(*opened, vision);
  EXPECT_THAT(open_error(folder, Role::kLanguage), HasSubstr("l.safetensors"));
  write_weights(folder.path() / "l.safetensors", language);
  std::filesystem::remove(folder.path() / "v.safetensors");
  expect_bytes(Checkpoint::open(folder.path(), Role::kLanguage).value(), language);
  EXPECT_THAT(open_error(folder, Role::kWhole), HasSubstr("v.safetensors"));
}

TEST(Checkpoint, AHalfSaysWhichPartItLacks) {
  TemporaryFolder folder;
  write_whole(folder, only(Part::kVision, toy_tensors(toy())));
  EXPECT_TRUE(Checkpoint::open(folder.path(), Role::kVision));
  EXPECT_THAT(open_error(folder, Role::kLanguage), HasSubstr("holds no language tensors"));
  EXPECT_THAT(open_error(folder, Role::kWhole), HasSubstr("holds no language tensors"));
}

TEST(Checkpoint, TroublesAreListedByName) {
  auto tensors = toy_tensors(toy());
  std::erase_if(tensors,
                [](const auto& t) { return t.name == "model.norm.weight" || t.name == "visual.blocks.1.norm1.bias"; });
  tensors[0].shape = {16, 3, 2, 16};
  tensors.push_back({"model.layers.2.extra", DType::kBF16, {1}, std::vector<std::byte>(2)});
  tensors[5].dtype = DType::kI32;
  tensors[5].shape = {8};
  tensors[5].bytes.resize(32);
  TemporaryFolder folder;
  write_whole(folder, tensors);
  const std::string message = open_error(folder);
  EXPECT_THAT(message, HasSubstr("2 missing: model.norm.weight, visual.blocks.1.norm1.bias;"));
  EXPECT_THAT(message, HasSubstr("1 unexpected: model.layers.2.extra;"));
  EXPECT_THAT(message, HasSubstr("visual.patch_embed.proj.weight is [16, 3, 2, 16], expected [16, 3, 2, 4, 4]"));
  EXPECT_THAT(message, HasSubstr(tensors[5].name + " (I32)"));
  EXPECT_THAT(open_error(folder, Role::kVision), Not(HasSubstr("model.norm.weight")));
  EXPECT_THAT(open_error(folder, Role::kLanguage), Not(HasSubstr("visual.")));
}

TEST(Checkpoint, LongListsAreCut) {
  auto tensors = toy_tensors(toy());
  std::erase_if(tensors, [](const auto& t) { return t.name.starts_with("visual.blocks."); });
  TemporaryFolder folder;
  write_whole(folder, tensors);
  EXPECT_THAT(open_error(folder), HasSubstr("36 missing: visual.blocks.0"));
  EXPECT_THAT(open_error(folder), HasSubstr("and 16 more"));
}

TEST(Checkpoint, TheSameTensorTwiceIsAnError) {
  auto tensors = toy_tensors(toy());
  auto again = tensors.back();
  again.name = newer_name(again.name);
  ASSERT_NE(again.name, tensors.back().name);
  tensors.push_back(again);
  TemporaryFolder folder;
  write_whole(folder, tensors);
  EXPECT_THAT(open_error(folder), HasSubstr("1 given twice: model.norm.weight"));
}

TEST(Checkpoint, DerivedBuffersAndTiedHeadsAreLeftOut) {
  const auto wanted = toy_tensors(toy());
  auto tensors = wanted;
  tensors.push_back({"visual.rotary_pos_emb.inv_freq", DType::kF32, {2}, std::vector<std::byte>(8)});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {6}, std::vector<std::byte>(24)});
  tensors.push_back({"lm_head.weight", DType::kBF16, {64, 24}, std::vector<std::byte>(2 * 64 * 24)});
  TemporaryFolder folder;
  write_whole(folder, tensors);
  const auto checkpoint = Checkpoint::open(folder.path(), Role::kWhole);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  expect_bytes(*checkpoint, wanted);

  json untied = toy_config();
  untied["tie_word_embeddings"] = false;
  TemporaryFolder separate;
  write_whole(separate, tensors, untied);
  EXPECT_TRUE(Checkpoint::open(separate.path(), Role::kWhole)->contains("lm_head.weight"));
  write_whole(separate, wanted, untied);
  EXPECT_THAT(open_error(separate), HasSubstr("1 missing: lm_head.weight"));
}

TEST(Checkpoint, AnIndexStaysInItsFolder) {
  for (const std::string file : {"../v.safetensors", "/etc/v.safetensors", "a/b.safetensors", "..", "", "v.bin",
                                 ".safetensors", "a\\b.safetensors"}) {
    TemporaryFolder folder;
    folder.write("config.json", toy_config().dump());
    folder.write("model.safetensors.index.json", json{{"weight_map", {{"visual.x", file}}}}.dump());
    EXPECT_THAT(open_error(folder), HasSubstr("field 'weight_map.visual.x': expected the name of a .safetensors file"))
        << file;
  }
  TemporaryFolder folder;
  folder.write("config.json", toy_config().dump());
  for (const std::string index :
       {"{}", "[]", "{\"weight_map\": 3}", "{\"weight_map\": {}}", "{\"weight_map\": {\"a\": 1}}"}) {
    folder.write("model.safetensors.index.json", index);
    EXPECT_THAT(open_error(folder), HasSubstr("model.safetensors.index.json")) << index;
  }
}

TEST(Checkpoint, AnIndexMustBeTrue) {
  const auto tensors = toy_tensors(toy());
  TemporaryFolder folder;
  folder.write("config.json", toy_config().dump());
  auto promised = tensors;
  promised.push_back({"visual.blocks.9.norm1.weight", DType::kBF16, {1}, {}});
  write_index(folder, {{"w.safetensors", promised}});
  write_weights(folder.path() / "w.safetensors", tensors);
  EXPECT_THAT(open_error(folder), HasSubstr("w.safetensors: does not fit its index; 1 tensors"));
  EXPECT_THAT(open_error(folder), HasSubstr("visual.blocks.9.norm1.weight"));
}

TEST(Checkpoint, FoldersThatAreNone) {
  TemporaryFolder folder;
  EXPECT_THAT(open_error(folder), HasSubstr("no safetensors files"));
  EXPECT_THAT(Checkpoint::open(folder.path() / "x", Role::kVision).error().message, HasSubstr("not there"));
  folder.write("file", "x");
  EXPECT_THAT(Checkpoint::open(folder.path() / "file", Role::kVision).error().message, HasSubstr("not a folder"));
  write_weights(folder.path() / "model.safetensors", toy_tensors(toy()));
  EXPECT_THAT(open_error(folder), HasSubstr("config.json"));
}

TEST(Checkpoint, RefusesWhatDoesNotRun) {
  TemporaryFolder folder;
  json config = toy_config();
  config["model_type"] = "qwen2_5_vl";
  write_whole(folder, toy_tensors(toy()), config);
  EXPECT_EQ(Checkpoint::open(folder.path(), Role::kLanguage).error().code, Code::kUnimplemented);
  EXPECT_THAT(open_error(folder), HasSubstr("'qwen2_5_vl' is a valid model, but not supported yet"));
}

TEST(Checkpoint, PreprocessorMustAgree) {
  TemporaryFolder folder;
  write_whole(folder, toy_tensors(toy()));
  folder.write("preprocessor_config.json", R"({"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2})");
  EXPECT_EQ(open_error(folder), "no error");
  folder.write("preprocessor_config.json", R"({"patch_size": 14, "merge_size": 2})");
  EXPECT_THAT(open_error(folder, Role::kVision), HasSubstr("field 'patch_size': expected 4 as in config.json, got 14"));
}

TEST(Checkpoint, MisalignedWeightsAreRefused) {
  auto tensors = toy_tensors(toy());
  tensors.insert(tensors.begin(), {"visual.rotary_pos_emb.inv_freq", DType::kU8, {1}, std::vector<std::byte>(1)});
  TemporaryFolder folder;
  write_whole(folder, tensors);
  EXPECT_THAT(open_error(folder, Role::kLanguage),
              HasSubstr("not aligned to its dtype in the file: model.embed_tokens.weight"));
}

// Resident KiB of this process's mapping of `file`.
std::optional<std::size_t> resident_kib(const std::filesystem::path& file) {
  std::ifstream maps("/proc/self/smaps");
  if (!maps) return std::nullopt;
  std::size_t total = 0;
  bool inside = false, seen = false;
  for (std::string line; std::getline(maps, line);) {
    const bool header = !line.empty() && (std::isdigit(line[0]) || (line[0] >= 'a' && line[0] <= 'f'));
    if (header) inside = line.find(file.filename().string()) != std::string::npos;
    if (!header && inside && line.starts_with("Rss:")) {
      total += std::stoul(line.substr(4));
      seen = true;
    }
  }
  return seen ? std::optional(total) : std::nullopt;
}

TEST(Checkpoint, ARoleTouchesItsOwnBytesOnly) {
  json config = toy_config();
  config["intermediate_size"] = 40000;  // about 11 MiB of language, 50 KiB of vision
  const ModelConfig parsed = parse_model_config(config.dump(), "config.json").value();
  TemporaryFolder folder;
  auto tensors = toy_tensors(parsed);
  write_whole(folder, tensors, config);
  const std::filesystem::path file = folder.path() / "model.safetensors";
  ASSERT_GT(std::filesystem::file_size(file), 10U << 20);

  const auto vision = Checkpoint::open(folder.path(), Role::kVision).value();
  for (const std::string& name : vision.names()) ASSERT_TRUE(to_f32(vision.tensor(name).value()));
  const auto resident = resident_kib(file);
  if (!resident) GTEST_SKIP() << "no smaps with resident sizes on this system";
  EXPECT_GT(*resident, 0U);
  EXPECT_LT(*resident, 1024U);  // the kernel maps a few neighbours of a touched page

  const auto language = Checkpoint::open(folder.path(), Role::kLanguage).value();
  for (const std::string& name : language.names()) ASSERT_TRUE(to_f32(language.tensor(name).value()));
  const std::size_t full = resident_kib(file).value();
  EXPECT_GT(full, 10U << 10);
  for (const std::string& name : language.names()) language.release(name);
  EXPECT_LT(resident_kib(file).value(), 1024U);
  expect_bytes(language, only(Part::kLanguage, tensors));  // released pages come back
}

TEST(Checkpoint, TheDemoModelOfTheSharedFolderOpens) {
  const auto dir = shared_dir() / "toytown" / "model";
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << dir << " is not here";
  for (const Role role : {Role::kVision, Role::kLanguage, Role::kWhole})
    EXPECT_TRUE(Checkpoint::open(dir, role)) << static_cast<int>(role);
}

}  // namespace
}  // namespace chiasm
