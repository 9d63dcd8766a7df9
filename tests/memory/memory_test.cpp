// What a role keeps in memory: loading vision and encoding a picture peaks at the weights and what the shapes ask for;
// the language side reads no vision bytes. On a checkpoint of its own making, 83 MiB of vision weights.
//
// Each case runs in a process of its own, whose peak of resident memory (VmHWM: anonymous and mapped pages) is its own.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/heap.h"
#include "base/test_support.h"
#include "roles/language_side.h"
#include "roles/vision_side.h"
#include "tensor/safetensors.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

constexpr double kMiB = 1 << 20;
constexpr std::int64_t kSide = 448;  // of the picture

double status_mib(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(field + ":")) return std::strtod(line.c_str() + field.size() + 1, nullptr) / 1024;
  return -1;
}

// The numbers that `body` returns, from a child process; empty when it failed.
std::vector<double> in_child(const std::function<std::vector<double>()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) return {};
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::vector<double> out = body();
    const std::size_t bytes = out.size() * sizeof(double);
    std::fflush(nullptr);
    std::_Exit(::write(ends[1], out.data(), bytes) == static_cast<ssize_t>(bytes) ? 0 : 1);
  }
  ::close(ends[1]);
  std::vector<double> out(16);
  const ssize_t got = ::read(ends[0], out.data(), out.size() * sizeof(double));
  ::close(ends[0]);
  int status = 1;
  if (child > 0) ::waitpid(child, &status, 0);
  if (status != 0 || got <= 0) return {};
  out.resize(static_cast<std::size_t>(got) / sizeof(double));
  return out;
}

// Toytown's files with a larger vision encoder, its weights in one file and the language model's in another.
class MemoryTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
#ifndef CHIASM_MEMORY_SKIP
    dir = fs::path(testing::TempDir()) / temporary_name("memory_test");
    fs::create_directories(dir);
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.json", "generation_config.json",
                             "preprocessor_config.json"})
      fs::copy_file(toytown_dir() / name, dir / name);
    std::ifstream in(toytown_dir() / "config.json");
    nlohmann::json config = nlohmann::json::parse(in);
    config["vision_config"]["depth"] = 12;
    config["vision_config"]["embed_dim"] = 512;
    config["vision_config"]["num_heads"] = 8;
    std::ofstream(dir / "config.json") << config.dump();
    const ModelConfig parsed = must(load_model_config(dir));
    vision_file = dir / "model-00001-of-00002.safetensors";
    nlohmann::json index{{"weight_map", nlohmann::json::object()}};
    write(vision_file, expected_vision_tensors(parsed.vision), index);
    write(dir / "model-00002-of-00002.safetensors", expected_language_tensors(parsed.text), index);
    std::ofstream(dir / "model.safetensors.index.json") << index.dump();
    ::setenv("XDG_CACHE_HOME", (dir / "cache").c_str(), 1);
#endif
  }

  static void TearDownTestSuite() {
    std::error_code ignored;
    if (!dir.empty()) fs::remove_all(dir, ignored);
  }

  void SetUp() override {
#ifdef CHIASM_MEMORY_SKIP
    GTEST_SKIP() << CHIASM_MEMORY_SKIP;
#endif
  }

  // Reproducible values in [-1/32, 1/32], one tensor's bytes for all: what they say does not matter here.
  static void write(const fs::path& path, const std::vector<ExpectedTensor>& tensors, nlohmann::json& index) {
    std::size_t largest = 0;
    for (const ExpectedTensor& tensor : tensors)
      largest = std::max<std::size_t>(largest, must(byte_count(tensor.shape, DType::kBF16)));
    std::vector<std::uint16_t> values(largest / sizeof(std::uint16_t));
    std::uint32_t state = 1;
    for (std::uint16_t& value : values) {
      state = state * 1664525 + 1013904223;
      value = f32_to_bf16(static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-36F);
    }
    std::vector<NamedTensor> named;
    for (const ExpectedTensor& tensor : tensors) {
      const std::size_t bytes = must(byte_count(tensor.shape, DType::kBF16));
      named.push_back({tensor.name, {DType::kBF16, tensor.shape, std::as_bytes(std::span(values)).first(bytes)}});
      index["weight_map"][tensor.name] = path.filename().string();
    }
    if (const Status written = write_safetensors(path, named, {}); !written) FAIL() << written.error().message;
  }

  // Drops the file from the page cache; true when nothing of it was left there.
  static bool evict(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ::fdatasync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
    return cached_pages(path) == 0;
  }

  // Pages of the file in the page cache, whoever read them.
  static std::int64_t cached_pages(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const auto size = static_cast<std::size_t>(fs::file_size(path));
    void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
    ::close(file);
    if (map == MAP_FAILED) return -1;
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> in_core((size + page - 1) / page);
    const int failed = ::mincore(map, size, in_core.data());
    ::munmap(map, size);
    if (failed != 0) return -1;
    std::int64_t count = 0;
    for (const unsigned char p : in_core) count += p & 1;
    return count;
  }

  inline static fs::path dir, vision_file;
};

TEST_F(MemoryTest, VisionPeaksAtItsWeightsAndTheActivationsOfOnePicture) {
  constexpr int kThreads = 2;
  const std::vector<double> got = in_child([&]() -> std::vector<double> {
    return_large_blocks();  // as every program does
    const double before = status_mib("VmRSS");
    ThreadPool threads(kThreads);
    VisionSideOptions options;
    options.model = dir;
    options.min_pixels = options.max_pixels = kSide * kSide;
    const auto eye = must(VisionSide::open(options, threads));
    const std::vector<std::byte> bytes = must(read_file(toytown_dir() / "eval" / "scene-00.png", 1 << 24));
    const std::span<const std::byte> file(bytes);
    const SeenPicture seen = must(eye->look({&file, 1}, kNoDeadline));
    return {before, status_mib("VmHWM"), static_cast<double>(eye->weight_bytes()) / kMiB,
            static_cast<double>(seen.feature->rows.rows())};
  });
  ASSERT_EQ(got.size(), 4U);
  const double before = got[0], peak = got[1], weights = got[2], rows = got[3];
  EXPECT_GT(weights, 60);
  const VisionConfig config = must(load_model_config(dir)).vision;
  const double patches = rows * static_cast<double>(config.merge_unit()), floats = sizeof(float) / kMiB;
  const auto width = static_cast<double>(config.embed_dim);
  // pixel_values; x, normed, q, k, v, attended and the MLP's hidden values; angles; features, twice (fresh and kept).
  const double activations =
      patches * floats *
      (static_cast<double>(config.patch_width()) + width * (6 + static_cast<double>(config.mlp_ratio)) +
       static_cast<double>(config.head_dim()) + 2 * static_cast<double>(config.hidden_size) / 4);
  const double packed_keys = 4 * 4;  // attention packs keys and values of some heads: 4 M floats at most
  // The decoded and resized picture, blocks of the product for each thread, code and libraries, what malloc keeps; it
  // keeps more since the encoder has a thread of its own, and so a heap that cannot use what loading left in another.
  const double own_heap = 12, rest = 640 * 480 * 6 / kMiB + 4 * kThreads + 12 + own_heap;
  std::printf("peak %.1f MiB: %.1f before, %.1f weights, %.1f allowed for activations, %.1f for the rest\n", peak,
              before, weights, activations + packed_keys, rest);
  EXPECT_LE(peak, before + weights + activations + packed_keys + rest);
  // The bound is of use only if a second copy of the weights, or a score matrix, would break it.
  EXPECT_LT(activations + packed_keys + rest, weights);
  EXPECT_GT(peak, before + weights);
}

TEST_F(MemoryTest, LanguageReadsNoVisionBytes) {
  // That this test can see reading: the vision digest of a whole checkpoint reads every vision tensor.
  ASSERT_EQ(in_child([&]() -> std::vector<double> {
              must(vision_digest_of(dir));
              return {1};
            }).size(),
            1U);
  EXPECT_GT(cached_pages(vision_file), 0)
      << "reading it leaves no trace in the page cache: this test would prove nothing";
  fs::remove_all(dir / "cache");  // where the digest was remembered
  if (!evict(vision_file)) GTEST_SKIP() << "the file system keeps files in memory: no telling what is read";
  const std::vector<double> got = in_child([&]() -> std::vector<double> {
    ThreadPool threads(2);
    LanguageSideOptions options;
    options.model = dir;
    const auto mind = must(LanguageSide::open(options, threads));
    Chat chat;
    chat.messages.push_back({"user", {ChatPart::of_text("Day or night?")}});
    const auto answers = must(mind->ask({&chat, 1}, {.sampling = {}, .max_tokens = 2, .logprobs = -1}));
    return {static_cast<double>(answers.size())};
  });
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(cached_pages(vision_file), 0);
}

}  // namespace
}  // namespace chiasm
