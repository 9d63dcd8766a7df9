// chiasm_gpu_bench: the times of docs/performance.md's table for cards, one JSON object a line. tools/gpu_bench.py runs
// it beside the reference implementation. Everything is timed from the host, with the copies there and back in it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/file.h"
#include "base/stopwatch.h"
#include "gpu_bench.h"
#include "kernels/devices.h"
#include "models/language_model.h"
#include "models/vision_model.h"
#include "operands.h"
#include "steps.h"
#include "tensor/npy.h"

namespace chiasm::bench {

Times times_of(int warmups, int samples, const std::function<void()>& body) {
  std::vector<double> ms;
  for (int i = 0; i < warmups + samples; ++i) {
    const Stopwatch watch;
    body();
    if (i >= warmups) ms.push_back(watch.ms());
  }
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front(), ms.back()};
}

void report(const std::string& name, const Times& times, const std::string& more) {
  fmt::print("{{\"name\": \"{}\", \"ms\": {:.3f}, \"low\": {:.3f}, \"high\": {:.3f}{}}}\n", name, times.median,
             times.low, times.high, more);
  std::fflush(stdout);
}

namespace {

// What is timed, beside the checkpoints.
struct Sizes {
  std::vector<std::int64_t> patches{1024, 5476, 16384}, prefill{1056, 4128}, sequences{1, 4, 8, 16, 32, 64};
  std::int64_t context = 1024, shared = 0;  // of decoding sequences
  int samples = 15;
  Precision precision = Precision::kExact, vision_precision = Precision::kExact;
};

void vision(const std::filesystem::path& dir, const Ops& ops, const Sizes& sizes) {
  const Stopwatch watch;
  const Checkpoint checkpoint = must(Checkpoint::open(dir, Role::kVision));
  const auto model = must(load_vision_model(checkpoint, ops, sizes.vision_precision));
  report("vision load", {watch.ms(), watch.ms(), watch.ms()}, fmt::format(", \"bytes\": {}", model->weight_bytes()));
  const VisionConfig& config = model->config();
  const auto run = [&](const std::string& name, const std::vector<Grid>& grids) {
    std::int64_t patches = 0;
    for (const Grid& grid : grids) patches += grid.patches();
    const Matrix pixels = random_matrix(patches, config.patch_width(), 12);
    report(name, times_of(3, sizes.samples, [&] { must(model->encode(pixels.view(), grids)); }));
    report(name + ", its pixels to the card", times_of(2, sizes.samples, [&] {
             const auto there = must(ops.bring(pixels.view()));
             float one = 0;
             must(ops.download(there.view.row_range(0, 1).col_range(0, 1), {&one, 1}));
           }));
  };
  for (const std::int64_t patches : sizes.patches)
    run(fmt::format("vision {}", patches), {grid_for(patches, config.spatial_merge_size)});
  if (sizes.patches.size() > 1) run("vision 8x1024", std::vector<Grid>(8, Grid{1, 32, 32}));
}

// A vision encoder at work beside what is timed: pictures of 1024 patches at a rate, or as many as it can do.
class Beside {
 public:
  Beside(const std::filesystem::path& dir, const Ops& ops, double per_second)
      : model_(must(load_vision_model(must(Checkpoint::open(dir, Role::kVision)), ops))), thread_([this, per_second] {
          const Grid grid = grid_for(1024, model_->config().spatial_merge_size);
          const Matrix pixels = random_matrix(grid.patches(), model_->config().patch_width(), 12);
          const Stopwatch watch;
          while (!stop_) {
            must(model_->encode(pixels.view(), {&grid, 1}));
            rate_ = 1000.0 * static_cast<double>(++done_) / watch.ms();
            while (!stop_ && static_cast<double>(done_) > watch.ms() / 1000 * per_second)
              std::this_thread::sleep_for(std::chrono::microseconds(200));
          }
        }) {}
  ~Beside() {
    stop_ = true;
    thread_.join();
  }
  double rate() const { return rate_; }

 private:
  std::unique_ptr<const VisionModel> model_;
  std::atomic<bool> stop_ = false;
  std::atomic<std::int64_t> done_ = 0;
  std::atomic<double> rate_ = 0;
  std::thread thread_;
};

void language(const std::filesystem::path& dir, const std::string& name, const Ops& ops, const Sizes& sizes) {
  const Stopwatch watch;
  std::unique_ptr<const LanguageModel> model;
  {
    const Checkpoint checkpoint = must(Checkpoint::open(dir, Role::kLanguage));
    model = must(load_language_model(checkpoint, ops, sizes.precision));
  }
  report("load " + name, {watch.ms(), watch.ms(), watch.ms()}, fmt::format(", \"bytes\": {}", model->weight_bytes()));
  for (const std::int64_t tokens : sizes.prefill) {
    Steps steps(*model, ops, 1, 0, tokens);
    report(fmt::format("prefill {} {}", name, tokens), times_of(3, sizes.samples, [&] { steps.run(0, tokens, true); }));
  }
  for (const std::int64_t sequences : sizes.sequences) {
    Steps steps(*model, ops, sequences, sizes.context, 64, sizes.shared);
    steps.fill(sizes.context, 128);
    std::int64_t past = sizes.context;
    const Times times = times_of(5, 40, [&] { steps.run(past++, 1, true); });
    const std::string together = sizes.shared > 0 ? fmt::format(", {} of {} shared", sizes.shared, sizes.context) : "";
    report(fmt::format("decode {} x{}{}", name, sequences, together), times,
           fmt::format(", \"tokens_per_s\": {:.1f}", 1000.0 * static_cast<double>(sequences) / times.median));
    if (sequences != 1 && sequences != 64) continue;
    // Without logits nothing waits, and nothing is recorded: what the host needs to hand a step to the card piece by
    // piece.
    Times host;
    for (int i = 0; i < 3; ++i) {
      host = times_of(0, 2, [&] { steps.run(past, 1, false); });
      steps.run(past, 1, true);  // waits
    }
    report(fmt::format("host of an unrecorded step {} x{}", name, sequences), host);
    steps.run(past, 1, true);
  }
}

Matrix read_matrix(const std::filesystem::path& file) {
  const std::vector<std::byte> bytes = must(read_file(file, 1 << 28));
  const NpyArray array = must(parse_npy({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, 1 << 26));
  const std::int64_t cols = array.shape.back();
  Matrix out(static_cast<std::int64_t>(array.values.size()) / cols, cols);
  std::transform(array.values.begin(), array.values.end(), out.data(), [](double v) { return static_cast<float>(v); });
  return out;
}

void write_matrix(const std::filesystem::path& file, ConstMatrixView values) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", values.rows, values.cols);
  header.resize((header.size() + 10 + 63) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  std::ofstream out(file, std::ios::binary);
  out.write("\x93NUMPY\x01\0", 8);
  out.put(static_cast<char>(header.size() & 0xFF)).put(static_cast<char>(header.size() >> 8));
  out << header;
  out.write(reinterpret_cast<const char*>(values.data),
            static_cast<std::streamsize>(sizeof(float)) * values.rows * values.cols);
}

// features.npy from pixels.npy (a picture of 32 rows of patches), logits.npy of the last token from ids.npy.
void check(const std::filesystem::path& vision_dir, const std::filesystem::path& language_dir, const Ops& ops,
           const std::filesystem::path& folder) {
  {
    const auto model = must(load_vision_model(must(Checkpoint::open(vision_dir, Role::kVision)), ops));
    const Matrix pixels = read_matrix(folder / "pixels.npy");
    const Grid grid{1, 32, pixels.rows() / 32};
    write_matrix(folder / "features.npy", must(model->encode(pixels.view(), {&grid, 1})).view());
  }
  const auto model = must(load_language_model(must(Checkpoint::open(language_dir, Role::kLanguage)), ops));
  const Matrix values = read_matrix(folder / "ids.npy");
  std::vector<std::int32_t> ids, positions, blocks;
  for (std::int64_t i = 0; i < values.size(); ++i) {
    ids.push_back(static_cast<std::int32_t>(values.data()[i]));
    positions.push_back(static_cast<std::int32_t>(i));
    if (i % kKvBlock == 0) blocks.push_back(static_cast<std::int32_t>(i / kKvBlock));
  }
  const auto pool = must(ops.make_kv_pool(model->kv_shape(static_cast<std::int64_t>(blocks.size()))));
  const SequenceRows rows{blocks, 0, values.size()};
  const std::vector<std::int32_t> last{static_cast<std::int32_t>(values.size() - 1)};
  write_matrix(folder / "logits.npy",
               must(model->forward({ids, {positions, positions, positions}, {}, {&rows, 1}, last}, *pool)).view());
}

int run(int argc, char** argv) {
  CLI::App app("Times vision, prefill and decode of checkpoints on a device.");
  std::string device = "cuda:0", vision_dir, check_dir, tokenizer, picture, beside, precision = "exact",
              vision_precision = "exact";
  double beside_rate = 100;
  std::vector<std::string> models;
  Sizes sizes;
  int threads = 0;
  app.add_option("--device", device, "cpu, cuda:N, or cuda:0,1 and so on for the language model");
  app.add_option("--beside", beside, "while pictures are encoded on this device (those of --vision, untimed)");
  app.add_option("--beside-rate", beside_rate, "so many a second, if it can");
  app.add_option("--vision", vision_dir, "checkpoint whose vision encoder is timed");
  app.add_option("--language", models, "NAME=DIR, again for more");
  app.add_option("--samples", sizes.samples, "of each time");
  app.add_option("--patches", sizes.patches, "of pictures");
  app.add_option("--prefill", sizes.prefill, "tokens");
  app.add_option("--sequences", sizes.sequences, "that decode together");
  app.add_option("--context", sizes.context, "tokens of each before they decode")->check(CLI::Range(1, 1 << 20));
  app.add_option("--shared", sizes.shared,
                 "of these, in whole blocks: the same for all, as questions about one picture")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--precision", precision, "of the language model: exact, int8, int4 or fp8");
  app.add_option("--vision-precision", vision_precision, "of the encoder: exact, int8 or fp8");
  app.add_option("--threads", threads, "of the host");
  app.add_option("--check", check_dir, "instead: features and logits of what stands in this folder, for gpu_bench.py");
  app.add_option("--tokenizer", tokenizer, "a folder with one: times five questions about a picture too");
  app.add_option("--picture", picture, "a file: times 8 clients that send it too");
  CLI11_PARSE(app, argc, argv);
  sizes.precision = must(precision_from_name(precision));
  sizes.vision_precision = chiasm::vision_precision(must(precision_from_name(vision_precision)));
  ThreadPool pool(threads);
  const auto ops = must(make_ops(device, pool));
  std::unique_ptr<Ops> beside_ops;
  std::unique_ptr<Beside> encoder;
  if (!beside.empty()) {
    beside_ops = must(make_ops(beside, pool));
    encoder = std::make_unique<Beside>(vision_dir, *beside_ops, beside_rate);
  }
  if (check_dir.empty() && !vision_dir.empty() && encoder == nullptr) {
    vision(vision_dir, *ops, sizes);
    if (!picture.empty()) picture_stream(vision_dir, picture, 8, *ops, pool);
  }
  for (const std::string& model : models) {
    const std::size_t at = model.find('=');
    if (at == std::string::npos) {
      fmt::print(stderr, "gpu_bench: --language expects NAME=DIR, got '{}'\n", model);
      return 2;
    }
    if (!check_dir.empty()) {
      check(vision_dir, model.substr(at + 1), *ops, check_dir);
      continue;
    }
    language(model.substr(at + 1), model.substr(0, at), *ops, sizes);
    if (encoder != nullptr)
      fmt::print("{{\"name\": \"pictures beside {}\", \"ms\": 0, \"per_s\": {:.1f}}}\n", model.substr(0, at),
                 encoder->rate());
    if (!tokenizer.empty() && !vision_dir.empty())
      five_questions({vision_dir, model.substr(at + 1), tokenizer}, model.substr(0, at), *ops, sizes.samples);
  }
  return 0;
}

}  // namespace
}  // namespace chiasm::bench

int main(int argc, char** argv) { return chiasm::bench::run(argc, argv); }
