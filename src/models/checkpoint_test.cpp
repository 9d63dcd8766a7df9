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

TEST(Checkpoint, LongListsAreFoldedNotCut) {
  auto tensors = toy_tensors(toy());
  std::erase_if(tensors, [](const auto& t) { return t.name.starts_with("visual.blocks."); });
  for (int i = 0; i < 30; ++i)
    tensors.push_back({fmt::format("model.extra{}", i), DType::kBF16, {1}, std::vector<std::byte>(2)});
  TemporaryFolder folder;
  write_whole(folder, tensors);
  const std::string message = open_error(folder);
  EXPECT_THAT(message,
              HasSubstr("36 missing: visual.blocks.{0-2}.attn.proj.bias, visual.blocks.{0-2}.attn.proj.weight, "
                        "visual.blocks.{0-2}.attn.qkv.bias, "));
  EXPECT_THAT(message, HasSubstr("visual.blocks.{0-2}.norm2.weight; 30 unexpected: model.extra0, "));
  for (int i = 0; i < 30; ++i) EXPECT_THAT(message, HasSubstr(fmt::format("model.extra{}", i)));

  // Shapes that differ in the same way fold too.
  json wider = toy_config();
  wider["vision_config"]["mlp_ratio"] = 2;
  write_whole(folder, toy_tensors(toy()), wider);
  EXPECT_THAT(open_error(folder), HasSubstr("9 misshapen: visual.blocks.{0-2}.mlp.fc1.bias is [64], expected [32], "
                                            "visual.blocks.{0-2}.mlp.fc1.weight is [64, 16], expected [32, 16], "));
}

// transformers 5 (modeling_utils.py, tie_weights): config.json may say what it likes, two different matrices are not
// tied.
TEST(Checkpoint, AHeadThatDiffersFromTheEmbeddingIsUsed) {
  const auto wanted = toy_tensors(toy());
  OwnedTensor head = *std::ranges::find(wanted, "model.embed_tokens.weight", &OwnedTensor::name);
  head.name = "lm_head.weight";
  const auto open_with = [&](const OwnedTensor& extra, Role role) {
    auto tensors = wanted;
    tensors.push_back(extra);
    TemporaryFolder folder;
    write_whole(folder, tensors);
    return Checkpoint::open(folder.path(), role);
  };
  for (const Role role : {Role::kWhole, Role::kLanguage}) {
    const auto same = open_with(head, role);
    ASSERT_TRUE(same) << same.error().message;
    EXPECT_TRUE(same->config().text.tie_word_embeddings);
    EXPECT_FALSE(same->contains("lm_head.weight"));
    for (const std::size_t at : {std::size_t{0}, head.bytes.size() - 1}) {
      OwnedTensor other = head;
      other.bytes[at] ^= std::byte{1};
      const auto differs = open_with(other, role);
      ASSERT_TRUE(differs) << differs.error().message;
      EXPECT_FALSE(differs->config().text.tie_word_embeddings);
      ASSERT_TRUE(differs->contains("lm_head.weight"));
      EXPECT_TRUE(std::ranges::equal(differs->tensor("lm_head.weight")->bytes, other.bytes));
    }
  }
  OwnedTensor half = head;  // the same bits, but another matrix
  half.dtype = DType::kF16;
  EXPECT_TRUE(open_with(half, Role::kWhole)->contains("lm_head.weight"));
  OwnedTensor cut = head;
  cut.shape[0] -= 1;
  cut.bytes.resize(cut.bytes.size() - 2 * 24);
  EXPECT_THAT(open_with(cut, Role::kWhole).error().message,
              HasSubstr("1 misshapen: lm_head.weight is [63, 24], expected [64, 24]"));
  EXPECT_FALSE(open_with(cut, Role::kVision)->contains("lm_head.weight"));
}

TEST(Checkpoint, DtypesThatWeightsCannotHaveCountOnlyWhereUsed) {
  auto tensors = toy_tensors(toy());
  for (OwnedTensor& tensor : tensors)
    if (tensor.name == "model.norm.weight") {
      tensor.dtype = DType::kF64;
      tensor.bytes.resize(24 * 8);
    }
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF8E4M3, {6}, std::vector<std::byte>(6)});
  TemporaryFolder folder;
  write_whole(folder, tensors);
  EXPECT_TRUE(Checkpoint::open(folder.path(), Role::kVision)) << open_error(folder, Role::kVision);
  EXPECT_TRUE(vision_digest_of(folder.path(), {}));
  for (const Role role : {Role::kLanguage, Role::kWhole})
    EXPECT_THAT(open_error(folder, role),
                HasSubstr("1 of a dtype that weights cannot have (accepted: BF16, F16, F32): model.norm.weight (F64)"));
}

TEST(Checkpoint, ADownloadThatWentWrongSaysWhatToDo) {
  TemporaryFolder folder;
  const auto tensors = toy_tensors(toy());
  folder.write("config.json", toy_config().dump());
  const auto path = folder.path() / "model.safetensors";
  const auto with = [&](const std::string& content) {
    folder.write("model.safetensors", content);
    return open_error(folder);
  };
  EXPECT_THAT(with("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
              HasSubstr("model.safetensors: this is a Git LFS pointer, not the weights: run `git lfs pull`"));
  for (const char* page : {"<!DOCTYPE html><html>...", "<html>", "\n  <!doctype html>", "<HTML lang=en>\n"})
    EXPECT_THAT(with(page), HasSubstr("this is a web page (HTML), not the weights")) << page;
  for (const std::string& pickle :
       {std::string("PK\x03\x04\0\0\x08\x08\0\0", 10), std::string("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", 9)})
    EXPECT_THAT(with(pickle), HasSubstr("this is a PyTorch file, not safetensors: convert it"));
  EXPECT_THAT(with(""), HasSubstr("this file is empty: download it again"));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_THAT(open_error(folder), testing::AllOf(HasSubstr("/model.safetensors: "), Not(HasSubstr("download"))));
  std::filesystem::remove(path);
  EXPECT_THAT(with("something else entirely"), HasSubstr("not a safetensors file"));

  // A sound file whose header is as long as "PK" reads as a number is no zip.
  write_weights(path, tensors);
  const std::string whole = read_text_file(path, 1 << 20).value();
  const auto header = static_cast<std::size_t>(static_cast<unsigned char>(whole[0])) +
                      256 * static_cast<std::size_t>(static_cast<unsigned char>(whole[1]));
  ASSERT_LT(header, 0x4B50U);
  EXPECT_EQ(with(std::string("PK\0\0\0\0\0\0", 8) + whole.substr(8, header) + std::string(0x4B50 - header, ' ') +
                 whole.substr(8 + header)),
            "no error");

  EXPECT_THAT(
      with(whole.substr(0, whole.size() - 7)),
      HasSubstr(fmt::format("model.safetensors: truncated: {} bytes are there, {} are needed: download it again",
                            whole.size() - 7, whole.size())));
  EXPECT_THAT(with(whole.substr(0, 100)),
              HasSubstr(fmt::format("truncated: 100 bytes are there, its header alone needs {}: download it again",
                                    header + 8)));

  std::filesystem::remove(path);
  write_index(folder, {{"b.safetensors", tensors}});
  EXPECT_THAT(open_error(folder),
              HasSubstr(fmt::format("b.safetensors: this file is not there, but model.safetensors.index.json says that "
                                    "it holds {} tensors: download it again",
                                    tensors.size())));
  folder.write("b.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(open_error(folder), HasSubstr("b.safetensors: this is a Git LFS pointer"));
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
  tensors.push_back(*std::ranges::find(wanted, "model.embed_tokens.weight", &OwnedTensor::name));
  tensors.back().name = "lm_head.weight";
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
  EXPECT_THAT(open_error(folder), HasSubstr("w.safetensors: does not fit model.safetensors.index.json: 1 tensors"));
  EXPECT_THAT(open_error(folder), HasSubstr("visual.blocks.9.norm1.weight"));
}

TEST(Checkpoint, FoldersThatAreNone) {
  TemporaryFolder folder;
  EXPECT_THAT(open_error(folder), HasSubstr("no safetensors files: expected model.safetensors, or several files and "
                                            "model.safetensors.index.json"));
  EXPECT_THAT(open_error(folder), Not(HasSubstr("convert")));
  folder.write("pytorch_model-00002-of-00002.bin", "x");
  folder.write("pytorch_model-00001-of-00002.bin", "x");
  EXPECT_THAT(open_error(folder), HasSubstr("there is pytorch_model-00001-of-00002.bin, which must be converted"));
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
  folder.write("processor_config.json", R"({"image_processor": {"patch_size": 4, "merge_size": 2}})");
  EXPECT_EQ(open_error(folder), "no error");
  folder.write("processor_config.json", R"({"image_processor": {"patch_size": 8, "merge_size": 2}})");
  EXPECT_THAT(open_error(folder), HasSubstr("/processor_config.json: field 'patch_size': expected 4"));
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
