// Checkpoints of integers: what is written, how it is named, what does not open.
#include <cmath>
#include <cstring>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/checkpoint.h"
#include "models/test_checkpoint.h"
#include "models/weight_files.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class QuantiseTest : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_CACHE_HOME", (folder_.path() / "cache").c_str(), 1);
    whole_ = folder_.path() / "whole";
    fs::create_directories(whole_);
    std::ofstream(whole_ / "config.json") << toy_config().dump();
    write_weights(whole_ / "model.safetensors", tensors_);
  }
  fs::path quantised(Precision vision, Precision language) {
    const fs::path out = folder_.path() / fmt::format("{}-{}", precision_name(vision), precision_name(language));
    const Status done = quantise_checkpoint(whole_, out, vision, language, nullptr);
    EXPECT_TRUE(done) << done.error().message;
    return out;
  }
  // The same tensors with one changed: over what quantise_checkpoint wrote.
  void rewrite(const fs::path& dir, const std::function<void(std::vector<OwnedTensor>&)>& change) {
    const Checkpoint checkpoint = must(Checkpoint::open(dir, Role::kWhole));
    std::vector<OwnedTensor> tensors;
    for (const std::string& name : checkpoint.names()) {
      const TensorView view = must(checkpoint.tensor(name));
      tensors.push_back({name, view.dtype, view.shape, {view.bytes.begin(), view.bytes.end()}});
    }
    change(tensors);
    std::ranges::stable_sort(tensors, std::greater(), [](const OwnedTensor& t) { return size_of(t.dtype); });
    write_weights(dir / "model.safetensors", tensors);
  }

  TemporaryFolder folder_;
  std::vector<OwnedTensor> tensors_ = toy_tensors(parse_model_config(toy_config().dump(), "config.json").value());
  fs::path whole_;
};

TEST_F(QuantiseTest, EveryMatrixBecomesItsRoundedSelf) {
  const Checkpoint exact = must(Checkpoint::open(whole_, Role::kWhole));
  const Checkpoint rounded = must(Checkpoint::open(quantised(Precision::kInt8, Precision::kInt4), Role::kWhole));
  EXPECT_EQ(rounded.precision(Role::kVision), Precision::kInt8);
  EXPECT_EQ(rounded.precision(Role::kLanguage), Precision::kInt4);
  EXPECT_EQ(rounded.precision_of("model.embed_tokens.weight"), Precision::kInt8);
  for (const std::string& name : exact.names()) {
    const TensorView view = must(exact.tensor(name));
    const Precision precision = rounded.precision_of(name);
    if (view.shape.size() < 2) {
      EXPECT_EQ(precision, Precision::kExact) << name;
      const TensorView same = must(rounded.tensor(name));
      EXPECT_TRUE(std::ranges::equal(same.bytes, view.bytes)) << name;
      continue;
    }
    ASSERT_NE(precision, Precision::kExact) << name;
    const QuantisedTensor got = must(rounded.quantised(name));
    const IntegerFormat format = integer_format(precision);
    const std::int64_t rows = view.shape[0], depth = must(element_count(view.shape)) / rows;
    ASSERT_EQ(got.depth, depth);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::vector<float> row(static_cast<std::size_t>(depth));
      for (std::int64_t k = 0; k < depth; ++k) row[static_cast<std::size_t>(k)] = element_as_f32(view, i * depth + k);
      std::vector<std::uint8_t> values(static_cast<std::size_t>(format.row_bytes(depth)));
      std::vector<std::uint16_t> scales(static_cast<std::size_t>(format.groups(depth)));
      quantise_row(row.data(), depth, format, values.data(), scales.data());
      ASSERT_EQ(std::memcmp(values.data(), got.values.bytes.data() + i * format.row_bytes(depth), values.size()), 0);
      ASSERT_EQ(std::memcmp(scales.data(), got.scales.bytes.data() + i * format.groups(depth) * 2, scales.size() * 2),
                0);
    }
  }
}

TEST_F(QuantiseTest, AnEncoderOfIntegersHasADigestOfItsOwn) {
  const Digest exact = must(vision_digest_of(whole_));
  const Digest int8 = vision_digest_in(exact, Precision::kInt8);
  EXPECT_NE(int8, exact);
  EXPECT_EQ(vision_digest_in(exact, Precision::kExact), exact);
  EXPECT_EQ(must(vision_digest_as(whole_, Precision::kInt8)), int8);
  EXPECT_EQ(must(vision_digest_as(whole_, std::nullopt)), exact);
  const fs::path both = quantised(Precision::kInt8, Precision::kInt8),
                 one = quantised(Precision::kExact, Precision::kInt4);
  EXPECT_EQ(must(vision_digest_of(both)), int8);
  EXPECT_EQ(must(vision_digest_of(both)), int8);  // from the cache
  EXPECT_EQ(must(vision_digest_as(both, Precision::kInt8)), int8);
  EXPECT_EQ(must(vision_digest_of(one)), exact);
  // Halves: the language half belongs to the encoder that it was split from.
  const fs::path halves = folder_.path() / "halves", language = folder_.path() / "l8", vision = folder_.path() / "v8";
  ASSERT_TRUE(split_checkpoint(whole_, halves, nullptr));
  ASSERT_TRUE(quantise_checkpoint(halves / "language", language, Precision::kInt8, Precision::kInt8, nullptr));
  ASSERT_TRUE(quantise_checkpoint(halves / "vision", vision, Precision::kInt8, Precision::kInt8, nullptr));
  EXPECT_EQ(must(vision_digest_of(language)), exact);
  EXPECT_EQ(must(vision_digest_as(language, Precision::kInt8)), int8);
  EXPECT_EQ(must(vision_digest_of(vision)), int8);
}

TEST_F(QuantiseTest, WhatWasAskedForIsHeldAgainstWhatIsStored) {
  const Checkpoint exact = must(Checkpoint::open(whole_, Role::kWhole));
  EXPECT_EQ(must(exact.precision(Role::kVision, std::nullopt)), Precision::kExact);
  EXPECT_EQ(must(exact.precision(Role::kVision, Precision::kInt8)), Precision::kInt8);
  const Checkpoint rounded = must(Checkpoint::open(quantised(Precision::kInt8, Precision::kInt4), Role::kWhole));
  EXPECT_EQ(must(rounded.precision(Role::kLanguage, std::nullopt)), Precision::kInt4);
  const auto other = rounded.precision(Role::kLanguage, Precision::kInt8);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("stored as int4, int8 was asked for"));
  EXPECT_EQ(must(exact.precision(Role::kVision, Precision::kFp8)), Precision::kFp8);
  EXPECT_EQ(vision_precision(Precision::kFp8), Precision::kFp8);
  EXPECT_FALSE(rounded.precision(Role::kVision, Precision::kFp8));
  for (const auto& [vision, language] :
       {std::pair{Precision::kFp8, Precision::kExact}, std::pair{Precision::kInt8, Precision::kFp8}}) {
    const Status fp8 = quantise_checkpoint(whole_, folder_.path() / "fp8", vision, language, nullptr);
    ASSERT_FALSE(fp8);
    EXPECT_THAT(fp8.error().message, HasSubstr("choose int8 or int4"));
    EXPECT_FALSE(fs::exists(folder_.path() / "fp8"));
  }
  // Twice is not once, and halves are made before.
  const Status again =
      quantise_checkpoint(rounded.dir(), folder_.path() / "again", Precision::kInt8, Precision::kInt8, nullptr);
  ASSERT_FALSE(again);
  EXPECT_FALSE(fs::exists(folder_.path() / "again"));
  EXPECT_FALSE(split_checkpoint(rounded.dir(), folder_.path() / "halves", nullptr));
}

TEST_F(QuantiseTest, IntegersWithoutTheirScalesDoNotOpen) {
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const auto error_after = [&](const std::function<void(std::vector<OwnedTensor>&)>& change) {
    const fs::path dir = quantised(Precision::kInt8, Precision::kInt8);
    rewrite(dir, change);
    auto opened = Checkpoint::open(dir, Role::kWhole);
    fs::remove_all(dir);
    return opened ? std::string() : opened.error().message;
  };
  const auto find = [](std::vector<OwnedTensor>& tensors, const std::string& wanted) {
    return std::ranges::find(tensors, wanted, &OwnedTensor::name);
  };
  EXPECT_EQ(error_after([](auto&) {}), "");
  EXPECT_THAT(error_after([&](auto& tensors) { tensors.erase(find(tensors, name + "_scales")); }),
              HasSubstr("missing: " + name + "_scales"));
  EXPECT_THAT(error_after([&](auto& tensors) { tensors.erase(find(tensors, name)); }), HasSubstr("missing: " + name));
  EXPECT_THAT(error_after([&](auto& tensors) { find(tensors, name + "_scales")->dtype = DType::kF16; }),
              HasSubstr("misshapen: " + name));
  EXPECT_THAT(error_after([&](auto& tensors) {
                auto& tensor = *find(tensors, name);
                tensor.shape[1] -= 4;
                tensor.bytes.resize(static_cast<std::size_t>(tensor.shape[0] * tensor.shape[1]));
              }),
              HasSubstr(name));
  EXPECT_THAT(error_after([&](auto& tensors) {
                auto extra = *find(tensors, name + "_scales");
                extra.name = "model.norm.weight_scales";
                tensors.push_back(extra);
              }),
              HasSubstr("unexpected: model.norm.weight_scales"));
}

}  // namespace
}  // namespace chiasm
