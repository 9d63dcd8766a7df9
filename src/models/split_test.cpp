#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "models/checkpoint.h"
#include "models/test_checkpoint.h"
#include "models/vision_digest_file.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

const fs::path kNoCache;

ModelConfig toy() { return parse_model_config(toy_config().dump(), "config.json").value(); }

Digest digest_of_folder(const fs::path& dir) {
  auto digest = vision_digest_of(dir, kNoCache);
  EXPECT_TRUE(digest) << digest.error().message;
  return digest.value_or(Digest{});
}

void write_whole(const TemporaryFolder& folder, const std::vector<OwnedTensor>& tensors,
                 const json& config = toy_config()) {
  folder.write("config.json", config.dump());
  write_weights(folder.path() / "model.safetensors", tensors);
}

// The checkpoint in five shards with an index, tensors in another order.
void write_shards(const TemporaryFolder& folder, std::vector<OwnedTensor> tensors, const json& config) {
  folder.write("config.json", config.dump());
  std::reverse(tensors.begin(), tensors.end());
  json map = json::object();
  for (int shard = 0; shard < 5; ++shard) {
    std::vector<OwnedTensor> part;
    for (std::size_t i = static_cast<std::size_t>(shard); i < tensors.size(); i += 5) part.push_back(tensors[i]);
    const std::string file = fmt::format("model-{}.safetensors", shard);
    for (const auto& tensor : part) map[tensor.name] = file;
    write_weights(folder.path() / file, part);
  }
  folder.write("model.safetensors.index.json", json{{"weight_map", map}}.dump());
}

TEST(VisionDigest, DoesNotDependOnFilesNamesOrLanguage) {
  auto tensors = toy_tensors(toy());
  TemporaryFolder whole, sharded, other_language;
  write_whole(whole, tensors);
  const Digest digest = digest_of_folder(whole.path());

  auto renamed = tensors;
  for (auto& tensor : renamed) tensor.name = newer_name(tensor.name);
  write_shards(sharded, renamed, toy_config_nested());
  EXPECT_EQ(digest_of_folder(sharded.path()), digest);

  tensors.push_back({"visual.rotary_pos_emb.inv_freq", DType::kF32, {2}, std::vector<std::byte>(8)});
  for (auto& tensor : tensors)
    if (tensor.name == "model.norm.weight") tensor.bytes[0] ^= std::byte{1};
  write_whole(other_language, tensors);
  EXPECT_EQ(digest_of_folder(other_language.path()), digest);
}

TEST(VisionDigest, DependsOnEveryVisionTensorAndField) {
  const auto tensors = toy_tensors(toy());
  std::set<Digest> digests;
  std::size_t variants = 0;
  const auto add = [&](const std::vector<OwnedTensor>& changed, const json& config) {
    TemporaryFolder folder;
    write_whole(folder, changed, config);
    digests.insert(digest_of_folder(folder.path()));
    ++variants;
  };
  add(tensors, toy_config());
  for (std::size_t i = 0; i < tensors.size() && tensors[i].name.starts_with("visual."); ++i) {
    auto changed = tensors;
    changed[i].bytes.back() ^= std::byte{0x80};
    add(changed, toy_config());
  }
  auto as_half = tensors;  // the same bytes under another dtype
  for (auto& tensor : as_half) tensor.dtype = DType::kF16;
  add(as_half, toy_config());
  json heads = toy_config();  // the same shapes, another model
  heads["vision_config"]["num_heads"] = 4;
  add(tensors, heads);
  EXPECT_EQ(digests.size(), variants);
  EXPECT_GT(variants, 40U);
}

TEST(VisionDigest, CacheIsUsedCheckedAndMended) {
  TemporaryFolder folder, cache;
  auto tensors = toy_tensors(toy());
  write_whole(folder, tensors);
  const Digest digest = digest_of_folder(folder.path());
  EXPECT_EQ(vision_digest_of(folder.path(), cache.path()).value(), digest);
  ASSERT_EQ(std::distance(fs::directory_iterator(cache.path()), {}), 1);
  const fs::path entry = fs::directory_iterator(cache.path())->path();

  // A planted answer shows that the entry is what answers.
  const std::string sound = read_text_file(entry, 1000).value();
  const Digest planted = digest_of({});
  ASSERT_TRUE(write_vision_digest_file(entry, planted));
  EXPECT_EQ(vision_digest_of(folder.path(), cache.path()).value(), planted);

  std::string flipped = sound, unchecked = sound;
  char& digit = flipped[flipped.find(digest.hex()) + 20];
  digit = digit == '0' ? '1' : '0';
  unchecked.replace(unchecked.find("xxh3"), 4, "xxh4");
  for (const std::string& corrupt :
       {std::string(), std::string("{"), std::string("{}"), std::string("[1]"), std::string("{\"format\": \"other\"}"),
        std::string("\xFF\xFE"), flipped, unchecked}) {
    cache.write(entry.filename().string(), corrupt);
    EXPECT_EQ(vision_digest_of(folder.path(), cache.path()).value(), digest) << corrupt;
    EXPECT_THAT(read_text_file(entry, 1000).value(), HasSubstr(digest.hex()));
  }

  // Other weights in a file of the same name and size are another key.
  tensors[0].bytes[0] ^= std::byte{1};
  write_whole(folder, tensors);
  EXPECT_NE(vision_digest_of(folder.path(), cache.path()).value(), digest);
  EXPECT_EQ(vision_digest_of(folder.path(), cache.path()).value(), digest_of_folder(folder.path()));

  // The weights are changed in place, and the mtime is set back.
  const fs::path weights = folder.path() / "model.safetensors";
  const Digest before = vision_digest_of(folder.path(), cache.path()).value();
  const auto time = fs::last_write_time(weights);
  tensors[0].bytes[1] ^= std::byte{1};
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // coarse clocks stamp files every few ms
  {
    const SafetensorsFile mapped = SafetensorsFile::open(weights).value();
    std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(mapped.file().bytes().size() - mapped.view().data().size() +
                                           mapped.view().tensors().at(tensors[0].name).begin));
    file.write(reinterpret_cast<const char*>(tensors[0].bytes.data()), 2);
  }
  fs::last_write_time(weights, time);
  EXPECT_NE(vision_digest_of(folder.path(), cache.path()).value(), before);
  EXPECT_EQ(vision_digest_of(folder.path(), cache.path()).value(), digest_of_folder(folder.path()));

  // No cache can be written below a file: the answer is the same.
  folder.write("file", "x");
  EXPECT_EQ(vision_digest_of(folder.path(), folder.path() / "file" / "cache").value(), digest_of_folder(folder.path()));
}

class Split : public testing::Test {
 protected:
  void SetUp() override {
    tensors_ = toy_tensors(toy());
    tensors_.push_back(*std::ranges::find(tensors_, "model.embed_tokens.weight", &OwnedTensor::name));
    tensors_.back().name = "lm_head.weight";  // tied: unused
    write_whole(model_, tensors_);
    for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.json", "LICENSE"})
      model_.write(file, std::string("the ") + file);
    model_.write("generation_config.json", "{\"eos_token_id\": 3}");
    model_.write("preprocessor_config.json", R"({"patch_size": 4, "min_pixels": 64, "max_pixels": 512})");
    model_.write("processor_config.json",
                 R"({"image_processor": {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1024}}})");
    model_.write("training.bin", "not for either half");
  }
  std::size_t entries(const fs::path& dir) const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir), {}));
  }
  TemporaryFolder model_, place_;
  std::vector<OwnedTensor> tensors_;
};

TEST_F(Split, HalvesLoadAndKeepIdentityAndBytes) {
  const fs::path out = place_.path() / "deep" / "out";
  std::uint64_t last = 0, total = 0;
  const Status status = split_checkpoint(model_.path(), out, [&](std::uint64_t done, std::uint64_t all) {
    EXPECT_GT(done, last);
    last = done;
    total = all;
  });
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0U);

  const auto vision = Checkpoint::open(out / "vision", Role::kVision);
  const auto language = Checkpoint::open(out / "language", Role::kLanguage);
  ASSERT_TRUE(vision) << vision.error().message;
  ASSERT_TRUE(language) << language.error().message;
  std::size_t kept = 0;
  for (const OwnedTensor& tensor : tensors_) {
    if (tensor.name == "lm_head.weight") continue;
    const auto view = (part_of(tensor.name) == Part::kVision ? *vision : *language).tensor(tensor.name);
    ASSERT_TRUE(view) << view.error().message;
    EXPECT_EQ(view->dtype, tensor.dtype);
    EXPECT_TRUE(std::ranges::equal(view->bytes, tensor.bytes)) << tensor.name;
    ++kept;
  }
  EXPECT_EQ(vision->names().size() + language->names().size(), kept);

  const Digest digest = digest_of_folder(model_.path());
  EXPECT_EQ(digest_of_folder(out / "vision"), digest);
  EXPECT_EQ(digest_of_folder(out / "language"), digest);
  for (const char* half : {"vision", "language"}) {
    EXPECT_EQ(json::parse(read_text_file(out / half / "vision_digest.json", 1000).value())["vision_digest"],
              digest.hex());
    EXPECT_EQ(read_text_file(out / half / "config.json", 1 << 20).value(), toy_config().dump());
    EXPECT_EQ(load_preprocessor_config(out / half)->max_pixels, 1024);
    EXPECT_TRUE(fs::exists(out / half / "preprocessor_config.json"));
    EXPECT_EQ(read_text_file(out / half / "LICENSE", 100).value(), "the LICENSE");
    EXPECT_FALSE(fs::exists(out / half / "training.bin"));
  }
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.json", "generation_config.json"}) {
    EXPECT_TRUE(fs::exists(out / "language" / file)) << file;
    EXPECT_FALSE(fs::exists(out / "vision" / file)) << file;
  }
  // What the known recipe with transformers relies on: tensors under "visual.", a file marked as PyTorch's.
  const auto file = SafetensorsFile::open(out / "vision" / "model.safetensors");
  ASSERT_TRUE(file);
  for (const auto& [name, info] : file->view().tensors()) EXPECT_TRUE(name.starts_with("visual.")) << name;
  EXPECT_EQ(file->view().metadata().at("format"), "pt");
  EXPECT_EQ(entries(place_.path() / "deep"), 1U);
}

TEST_F(Split, ShardsCarryAnIndex) {
  const fs::path out = place_.path() / "out";
  constexpr std::uint64_t kShard = 4000;
  ASSERT_TRUE(split_checkpoint(model_.path(), out, nullptr, kShard));
  EXPECT_TRUE(Checkpoint::open(out / "language", Role::kLanguage));
  EXPECT_EQ(digest_of_folder(out / "language"), digest_of_folder(model_.path()));
  const json index = json::parse(read_text_file(out / "language" / "model.safetensors.index.json", 1 << 20).value());
  std::set<std::string> files;
  for (const auto& [name, file] : index["weight_map"].items()) files.insert(file);
  EXPECT_GT(files.size(), 2U);
  std::uint64_t total = 0;
  for (const std::string& name : files) {
    const auto file = SafetensorsFile::open(out / "language" / name);
    ASSERT_TRUE(file) << name;
    total += file->view().data().size();
    EXPECT_TRUE(file->view().data().size() <= kShard || file->view().tensors().size() == 1) << name;
  }
  EXPECT_EQ(index["metadata"]["total_size"], total);
  EXPECT_FALSE(fs::exists(out / "language" / "model.safetensors"));
}

TEST_F(Split, NewerNamesComeOutAsThePublishedOnes) {
  TemporaryFolder newer;
  for (auto& tensor : tensors_) tensor.name = newer_name(tensor.name);
  write_shards(newer, tensors_, toy_config_nested());
  ASSERT_TRUE(split_checkpoint(newer.path(), place_.path() / "a", nullptr));
  ASSERT_TRUE(split_checkpoint(model_.path(), place_.path() / "b", nullptr));
  for (const char* half : {"vision", "language"})
    EXPECT_EQ(read_file(place_.path() / "a" / half / "model.safetensors", 1 << 20).value(),
              read_file(place_.path() / "b" / half / "model.safetensors", 1 << 20).value());
}

TEST_F(Split, NeverOverwrites) {
  place_.write("out/precious", "x");
  const Status status = split_checkpoint(model_.path(), place_.path() / "out", nullptr);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message,
              HasSubstr("expected a folder that is empty or not there, but it holds 'precious'"));
  EXPECT_FALSE(split_checkpoint(model_.path(), place_.path() / "out" / "precious", nullptr));
  EXPECT_FALSE(split_checkpoint(model_.path(), model_.path(), nullptr));
  EXPECT_EQ(read_text_file(place_.path() / "out" / "precious", 10).value(), "x");
  EXPECT_EQ(entries(place_.path()), 1U);
  fs::create_directories(place_.path() / "empty");
  EXPECT_TRUE(split_checkpoint(model_.path(), place_.path() / "empty" / "", nullptr));
  EXPECT_TRUE(fs::exists(place_.path() / "empty" / "vision" / "config.json"));
}

TEST_F(Split, WritesIntoAnEmptyFolderThatIsThere) {
  // A folder that may be written in a parent that may not, as mount points and shared folders are.
  const fs::path parent = place_.path() / "parent", folder = parent / "folder";
  fs::create_directories(folder);
  const auto inode = [&] {
    struct stat info{};
    EXPECT_EQ(::stat(folder.c_str(), &info), 0);
    return info.st_ino;
  };
  const auto before = inode();
  fs::permissions(parent, fs::perms::owner_read | fs::perms::owner_exec);
  const Status status = split_checkpoint(model_.path(), folder, nullptr);
  fs::permissions(parent, fs::perms::owner_all);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(inode(), before);  // the folder itself, not another in its place
  EXPECT_EQ(entries(folder), 2U);
  EXPECT_EQ(entries(parent), 1U);
  EXPECT_TRUE(Checkpoint::open(folder / "vision", Role::kVision));
  EXPECT_TRUE(Checkpoint::open(folder / "language", Role::kLanguage));

  fs::create_directories(place_.path() / "target");
  fs::create_directory_symlink(place_.path() / "target", place_.path() / "link");
  ASSERT_TRUE(split_checkpoint(model_.path(), place_.path() / "link", nullptr));
  EXPECT_TRUE(fs::is_symlink(place_.path() / "link"));
  EXPECT_TRUE(fs::exists(place_.path() / "target" / "language" / "config.json"));

  fs::create_directory_symlink(place_.path() / "nowhere", place_.path() / "broken");
  EXPECT_THAT(split_checkpoint(model_.path(), place_.path() / "broken", nullptr).error().message,
              HasSubstr("a link to something that is not there"));
}

TEST_F(Split, StopsAndLeavesNothing) {
  const std::size_t parts = [&] {
    std::size_t count = 0;
    EXPECT_TRUE(split_checkpoint(model_.path(), place_.path() / "all", [&](auto, auto) { ++count; }));
    return count;
  }();
  ASSERT_GT(parts, 20U);
  fs::create_directories(place_.path() / "empty");
  for (const char* out : {"new", "empty"})
    for (const std::size_t last : {std::size_t{0}, std::size_t{1}, std::size_t{15}, parts}) {
      std::atomic<bool> stop = last == 0;
      std::size_t count = 0;
      const Status status = split_checkpoint(
          model_.path(), place_.path() / out, [&](auto, auto) { stop = ++count == last; }, 2ULL << 30, &stop);
      ASSERT_FALSE(status) << last;
      EXPECT_EQ(status.error().code, Code::kCancelled);
      EXPECT_EQ(status.error().message, "stopped");
      EXPECT_EQ(count, last);  // no part after the one
      EXPECT_EQ(entries(place_.path()), 2U) << "left something beside 'all' and 'empty'";
      EXPECT_EQ(entries(place_.path() / "empty"), 0U);
    }
  std::atomic<bool> never = false;
  EXPECT_TRUE(split_checkpoint(model_.path(), place_.path() / "empty", nullptr, 2ULL << 30, &never));
}

TEST_F(Split, KeepsAHeadThatDiffersFromTheEmbedding) {
  tensors_.back().bytes[7] ^= std::byte{1};
  write_whole(model_, tensors_);
  ASSERT_TRUE(split_checkpoint(model_.path(), place_.path() / "out", nullptr));
  const auto language = Checkpoint::open(place_.path() / "out" / "language", Role::kLanguage);
  ASSERT_TRUE(language) << language.error().message;
  EXPECT_FALSE(language->config().text.tie_word_embeddings);
  EXPECT_TRUE(std::ranges::equal(language->tensor("lm_head.weight").value().bytes, tensors_.back().bytes));
}

TEST_F(Split, FailuresLeaveNothing) {
  fs::remove(model_.path() / "config.json");
  EXPECT_FALSE(split_checkpoint(model_.path(), place_.path() / "out", nullptr));
  write_whole(model_, tensors_);
  place_.write("file", "x");
  EXPECT_FALSE(split_checkpoint(model_.path(), place_.path() / "file" / "out", nullptr));
  EXPECT_EQ(entries(place_.path()), 1U);

  ASSERT_TRUE(split_checkpoint(model_.path(), place_.path() / "out", nullptr));
  const Status half = split_checkpoint(place_.path() / "out" / "vision", place_.path() / "again", nullptr);
  EXPECT_THAT(half.error().message, HasSubstr("holds no language tensors"));
  EXPECT_FALSE(fs::exists(place_.path() / "again"));
}

TEST_F(Split, ALanguageHalfNeedsItsDigest) {
  ASSERT_TRUE(split_checkpoint(model_.path(), place_.path() / "out", nullptr));
  const fs::path language = place_.path() / "out" / "language";
  for (const char* text :
       {"{", R"({"format": "chiasm.vision_digest/1", "vision_digest": "abc"})", R"({"format": "x"})"}) {
    place_.write("out/language/vision_digest.json", text);
    const auto digest = vision_digest_of(language, kNoCache);
    ASSERT_FALSE(digest);
    EXPECT_THAT(digest.error().message, HasSubstr("vision_digest.json"));
  }
  // Every digit that is not as it was written, or no checksum.
  const std::string hex = digest_of_folder(model_.path()).hex();
  ASSERT_TRUE(write_vision_digest_file(language / "vision_digest.json", digest_of_folder(model_.path())));
  const std::string sound = read_text_file(language / "vision_digest.json", 1000).value();
  EXPECT_EQ(digest_of_folder(language).hex(), hex);
  EXPECT_EQ(json::parse(sound)["xxh3"], fmt::format("{:016x}", checksum_of(std::as_bytes(std::span(hex)))));
  std::vector<std::string> damaged{sound, sound};
  damaged[0].replace(sound.find("xxh3"), 4, "xxh4");
  damaged[1][sound.find("xxh3") + 8] ^= 1;
  for (std::size_t i = 0; i < hex.size(); ++i) {
    damaged.push_back(sound);
    char& digit = damaged.back()[sound.find(hex) + i];
    digit = digit == 'a' ? 'b' : 'a';
  }
  for (const std::string& text : damaged) {
    place_.write("out/language/vision_digest.json", text);
    const auto digest = vision_digest_of(language, kNoCache);
    ASSERT_FALSE(digest) << text;
    EXPECT_EQ(digest.error().code, Code::kDataLoss);
    EXPECT_THAT(digest.error().message, HasSubstr("vision_digest.json: this file is damaged"));
  }
  fs::remove(language / "vision_digest.json");
  EXPECT_EQ(vision_digest_of(language, kNoCache).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace chiasm
