#include "features/feature_file.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <gmock/gmock.h>

#include "base/file.h"
#include "features/test_features.h"

namespace chiasm {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> sample_file(int seed = 1, DType dtype = DType::kF32) {
  return serialize_feature(sample_feature(seed), dtype).value();
}

FeatureFault fault_of_bytes(std::span<const std::byte> bytes, const FeatureExpectations& expected = {}) {
  const auto parsed = parse_feature(bytes, "sample", expected);
  EXPECT_FALSE(parsed.has_value());
  return parsed ? FeatureFault::kAbsent : parsed.error().fault;
}

TEST(FeatureFile, RoundTripIsExact) {
  Feature feature = sample_feature(1, 16, 4, 5);
  feature.rows.data()[0] = -0.0F;
  feature.rows.data()[1] = std::numeric_limits<float>::denorm_min();
  feature.rows.data()[2] = std::numeric_limits<float>::max();
  feature.meta.model = "dir/模型 \"2B\"\n";
  feature.meta.arithmetic = "BF16";
  const auto bytes = serialize_feature(feature, DType::kF32).value();
  const auto back = parse_feature(bytes, "sample").value();
  EXPECT_EQ(back.meta, feature.meta);
  ASSERT_EQ(back.rows.rows(), 20);
  ASSERT_EQ(back.rows.cols(), 16);
  for (int i = 0; i < 20 * 16; ++i)
    EXPECT_EQ(std::bit_cast<std::uint32_t>(back.rows.data()[i]), std::bit_cast<std::uint32_t>(feature.rows.data()[i]));
}

TEST(FeatureFile, HalvesWithinTheirUnitRoundoff) {
  for (const auto& [dtype, roundoff] : {std::pair{DType::kF16, 0x1p-11F}, {DType::kBF16, 0x1p-8F}}) {
    Feature feature = sample_feature(1);
    const auto bytes = serialize_feature(feature, dtype).value();
    EXPECT_LT(bytes.size(), sample_file().size());
    const auto back = parse_feature(bytes, "sample").value();
    EXPECT_EQ(back.meta.dtype, dtype);
    for (std::int64_t i = 0; i < feature.rows.size(); ++i)
      EXPECT_LE(std::abs(back.rows.data()[i] - feature.rows.data()[i]),
                std::abs(feature.rows.data()[i]) * roundoff + 0x1p-25F);
    // Rounded in memory is the same as stored and read again, and as an F32 file that is asked for in this type.
    ASSERT_TRUE(round_feature(feature, dtype).has_value());
    EXPECT_EQ(values_of(back), values_of(feature));
    const auto asked = parse_feature(sample_file(), "sample", {.dtype = dtype}).value();
    EXPECT_EQ(values_of(asked), values_of(feature));
    EXPECT_EQ(asked.meta, feature.meta);
    // The other way round something is lost.
    EXPECT_EQ(fault_of_bytes(bytes, {.dtype = DType::kF32}), FeatureFault::kMismatch);
    EXPECT_FALSE(serialize_feature(feature, DType::kF32).has_value());
  }
}

TEST(FeatureFile, IsAPlainSafetensorsFile) {
  const auto bytes = sample_file();
  const auto view = SafetensorsView::parse(bytes, "sample").value();
  ASSERT_EQ(view.tensors().size(), 1U);
  EXPECT_EQ(view.tensor("image_embeds").value().shape, (Shape{6, 8}));
  const auto& metadata = view.metadata();
  std::vector<std::string> keys;
  for (const auto& [key, value] : metadata) keys.push_back(key);
  EXPECT_THAT(keys, ::testing::ElementsAre("dtype", "feature_id", "format", "grid_thw", "image_digest", "model",
                                           "preprocess_digest", "vision_digest", "xxh3", "xxh3_metadata"));
  EXPECT_EQ(metadata.find("format")->second, "chiasm.feature/1");
  EXPECT_EQ(metadata.find("grid_thw")->second, "1,4,6");
  EXPECT_EQ(metadata.find("feature_id")->second, sample_key(1).id.hex());
}

TEST(FeatureFile, WritersRefuseWhatReadersWould) {
  Feature feature = sample_feature(1);
  feature.rows.data()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(serialize_feature(feature, DType::kF32).has_value());
  feature = sample_feature(1);
  feature.rows.data()[3] = 1e30F;
  EXPECT_THAT(serialize_feature(feature, DType::kF16).error().message, HasSubstr("does not fit F16"));
  EXPECT_TRUE(serialize_feature(feature, DType::kBF16).has_value());
  EXPECT_FALSE(serialize_feature(feature, DType::kI32).has_value());
  feature.meta.grid_thw = {1, 4, 8};
  EXPECT_FALSE(serialize_feature(feature, DType::kF32).has_value());
  feature = sample_feature(1);
  feature.meta.model = "\xff\xfe";
  EXPECT_FALSE(serialize_feature(feature, DType::kF32).has_value());
  feature.meta.model = std::string(257, 'x');
  EXPECT_FALSE(serialize_feature(feature, DType::kF32).has_value());
  feature = sample_feature(1);
  feature.meta.arithmetic = std::string(257, 'x');
  EXPECT_FALSE(serialize_feature(feature, DType::kF32).has_value());
}

TEST(FeatureFile, NoTruncationParses) {
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    const auto bytes = sample_file(1, dtype);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      ASSERT_EQ(fault_of_bytes(std::span(bytes).first(size)), FeatureFault::kTruncated) << size;
  }
}

TEST(FeatureFile, NoSingleBitFlipParses) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    auto bytes = sample_file(1, dtype);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        bytes[i] ^= std::byte{1} << bit;
        ASSERT_FALSE(parse_feature(bytes, "sample").has_value()) << "byte " << i << " bit " << bit;
        bytes[i] ^= std::byte{1} << bit;
      }
    }
    EXPECT_TRUE(parse_feature(bytes, "sample").has_value());
  }
}

TEST(FeatureFile, TrailingBytesAreRefused) {
  auto bytes = sample_file();
  bytes.push_back(std::byte{0});
  EXPECT_EQ(fault_of_bytes(bytes), FeatureFault::kCorrupt);
}

// Damage cannot make these, but another writer can.
TEST(FeatureFile, FieldsThatAreWrongThoughChecksumsHold) {
  const auto bytes = sample_file();
  const auto with = [&](std::string_view key, std::string value) {
    return rebuild(bytes, [&](Metadata& m, NamedTensor&) { m[std::string(key)] = value; });
  };
  ASSERT_TRUE(parse_feature(with("model", "other"), "sample").has_value());
  EXPECT_EQ(parse_feature(with("arithmetic", "BF16"), "sample").value().meta.arithmetic, "BF16");
  EXPECT_EQ(parse_feature(bytes, "sample").value().meta.arithmetic, "");  // absent in earlier files
  EXPECT_EQ(fault_of_bytes(with("arithmetic", std::string(257, 'a'))), FeatureFault::kCorrupt);
  ASSERT_TRUE(parse_feature(with("note", "fields of later writers are allowed"), "sample").has_value());
  for (const auto& key : {"feature_id", "vision_digest", "preprocess_digest", "image_digest", "grid_thw", "model",
                          "dtype", "xxh3", "xxh3_metadata"}) {
    const auto without = rebuild(bytes, [&](Metadata& m, NamedTensor&) { m.erase(key); });
    const auto parsed = parse_feature(without, "sample");
    ASSERT_FALSE(parsed.has_value()) << key;
    EXPECT_EQ(parsed.error().fault, FeatureFault::kCorrupt) << key;
    EXPECT_THAT(parsed.error().message, HasSubstr(key));
  }
  for (const auto& key : {"feature_id", "vision_digest", "preprocess_digest", "image_digest"})
    for (const auto& value : {std::string(), std::string(63, 'a'), std::string(64, 'A'), std::string(64, 'g')})
      EXPECT_EQ(fault_of_bytes(with(key, value)), FeatureFault::kCorrupt) << key << " " << value;
  for (const auto& value : {"", "1", "1,4", "1,4,6,", "1,4,6,1", "1, 4,6", "+1,4,6", "1,04,6", "1,4,-6", "0,4,6",
                            "1,4,6 ", "1,4,8", "1,4,99999999999999999999", "1000001,4,6", "[1,4,6]", ",,", "4,6,1"})
    EXPECT_EQ(fault_of_bytes(with("grid_thw", value)), FeatureFault::kCorrupt) << value;
  for (const auto& value : {"F16", "f32", "I32", ""})
    EXPECT_EQ(fault_of_bytes(with("dtype", value)), FeatureFault::kCorrupt) << value;
  EXPECT_EQ(fault_of_bytes(with("model", std::string(257, 'm'))), FeatureFault::kCorrupt);
  for (const auto& value : {"chiasm.feature/2", "chiasm.feature/", "pt", ""})
    EXPECT_EQ(fault_of_bytes(with("format", value)), FeatureFault::kForeign) << value;
}

TEST(FeatureFile, TensorsThatAreWrongThoughChecksumsHold) {
  const auto bytes = sample_file();
  const auto with = [&](const std::function<void(NamedTensor&)>& edit) {
    return fault_of_bytes(rebuild(bytes, [&](Metadata&, NamedTensor& t) { edit(t); }));
  };
  EXPECT_EQ(with([](NamedTensor& t) { t.name = "embeds"; }), FeatureFault::kCorrupt);
  EXPECT_EQ(with([](NamedTensor& t) { t.tensor.shape = {48}; }), FeatureFault::kCorrupt);
  EXPECT_EQ(with([](NamedTensor& t) { t.tensor.shape = {8, 6}; }), FeatureFault::kCorrupt);
  EXPECT_EQ(with([](NamedTensor& t) { t.tensor.shape = {1, 6, 8}; }), FeatureFault::kCorrupt);
  EXPECT_EQ(with([](NamedTensor& t) { t.tensor.dtype = DType::kI32; }), FeatureFault::kCorrupt);
  EXPECT_EQ(with([](NamedTensor& t) {
              t.tensor.bytes = {};
              t.tensor.shape = {6, 0};
            }),
            FeatureFault::kCorrupt);
  for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> rows(48, value);
    EXPECT_EQ(with([&](NamedTensor& t) { t.tensor.bytes = std::as_bytes(std::span(rows)); }), FeatureFault::kCorrupt);
  }
  // Two tensors.
  const auto view = SafetensorsView::parse(bytes, "sample").value();
  const NamedTensor both[] = {{"image_embeds", view.tensor("image_embeds").value()},
                              {"more", view.tensor("image_embeds").value()}};
  std::string file = safetensors_header(both, view.metadata()).value();
  for (int i = 0; i < 2; ++i) file.append(reinterpret_cast<const char*>(both[0].tensor.bytes.data()), 48 * 4);
  EXPECT_EQ(fault_of_bytes(bytes_of(file)), FeatureFault::kCorrupt);
}

TEST(FeatureFile, ASoundFileThatIsNotTheOneAskedFor) {
  const FeatureKey key = sample_key(1);
  const auto bytes = sample_file(1);
  FeatureExpectations right = FeatureExpectations::of(key);
  right.merge = 2;
  right.width = 8;
  right.dtype = DType::kF32;
  ASSERT_TRUE(parse_feature(bytes, "sample", right).has_value());
  const Digest other = digest_of(bytes_of("other"));
  const auto with = [&](const std::function<void(FeatureExpectations&)>& edit) {
    FeatureExpectations expected = right;
    edit(expected);
    return fault_of_bytes(bytes, expected);
  };
  EXPECT_EQ(with([&](auto& e) { e.id = FeatureId{other}; }), FeatureFault::kMismatch);
  EXPECT_EQ(with([&](auto& e) { e.vision_digest = other; }), FeatureFault::kMismatch);
  EXPECT_EQ(with([&](auto& e) { e.preprocess_digest = other; }), FeatureFault::kMismatch);
  EXPECT_EQ(with([&](auto& e) { e.image_digest = other; }), FeatureFault::kMismatch);
  EXPECT_EQ(with([&](auto& e) { e.merge = 1; }), FeatureFault::kMismatch);
  EXPECT_EQ(with([&](auto& e) { e.width = 9; }), FeatureFault::kMismatch);
}

TEST(FeatureFile, ForeignFiles) {
  EXPECT_EQ(fault_of_bytes(bytes_of("\x89PNG\r\n\x1a\n and so on, for long enough")), FeatureFault::kForeign);
  EXPECT_EQ(fault_of_bytes(bytes_of(std::string(100, '\0'))), FeatureFault::kForeign);
  const std::vector<float> weights(6, 1.0F);
  const NamedTensor tensor{"model.norm.weight", {DType::kF32, {6}, std::as_bytes(std::span(weights))}};
  for (const Metadata& metadata : {Metadata{}, Metadata{{"format", "pt"}}}) {
    std::string file = safetensors_header({&tensor, 1}, metadata).value();
    file.append(reinterpret_cast<const char*>(weights.data()), 24);
    EXPECT_EQ(fault_of_bytes(bytes_of(file)), FeatureFault::kForeign);
  }
}

TEST(FeatureFile, ManyTensorsAreTooMuchOfAHeader) {
  const std::vector<NamedTensor> tensors = [] {
    std::vector<NamedTensor> out;
    for (int i = 0; i < 2000; ++i) out.push_back({"image_embeds" + std::to_string(i), {DType::kF32, {0}, {}}});
    return out;
  }();
  const std::string file = safetensors_header(tensors, {{"format", std::string(kFeatureFormat)}}).value();
  ASSERT_GT(file.size(), kMaxFeatureHeader);
  EXPECT_EQ(fault_of_bytes(bytes_of(file)), FeatureFault::kForeign);
}

TEST(FeatureFile, LimitsAndPaths) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a" / "feature.safetensors";
  ASSERT_TRUE(save_feature(path, sample_feature(1), DType::kF32).has_value());
  const auto size = std::filesystem::file_size(path);
  EXPECT_EQ(load_feature(path, {}, size).value().meta, sample_feature(1).meta);
  const auto large = load_feature(path, {}, size - 1);
  ASSERT_FALSE(large.has_value());
  EXPECT_EQ(large.error().fault, FeatureFault::kOversized);
  EXPECT_EQ(large.error().code, Code::kResourceExhausted);
  EXPECT_EQ(parse_feature(sample_file(), "sample", {}, size - 1).error().fault, FeatureFault::kOversized);
  EXPECT_EQ(load_feature(folder.path() / "none").error().fault, FeatureFault::kAbsent);
  EXPECT_EQ(load_feature(folder.path()).error().fault, FeatureFault::kForeign);
  const auto error = load_feature(path, {.id = sample_key(2).id}).error();
  EXPECT_THAT(error.message, HasSubstr(path.string()));
  EXPECT_THAT(error.message, HasSubstr(sample_key(2).id.hex()));
}

TEST(FeatureFile, MetadataAloneIsThatOfTheWholeAndChecked) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "f";
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    ASSERT_TRUE(save_feature(path, sample_feature(1), dtype).has_value());
    const auto meta = load_feature_meta(path);
    ASSERT_TRUE(meta.has_value()) << meta.error().message;
    EXPECT_EQ(*meta, load_feature(path).value().meta);
  }
  const auto bytes = sample_file();
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  write_bytes(path, std::span(bytes).first(8 + header));  // the rows are not looked at
  EXPECT_EQ(load_feature_meta(path).value(), sample_feature(1).meta);
  write_bytes(path, std::span(bytes).first(8 + header - 1));
  EXPECT_FALSE(load_feature_meta(path));
  write_bytes(path, rebuild(bytes, [](Metadata& fields, NamedTensor&) { fields["grid_thw"] = "1,2,2"; }, true));
  EXPECT_EQ(load_feature_meta(path).error().fault, FeatureFault::kCorrupt);  // its checksum
  write_bytes(path, rebuild(bytes, [](Metadata& fields, NamedTensor&) { fields["format"] = "other"; }));
  EXPECT_EQ(load_feature_meta(path).error().fault, FeatureFault::kForeign);
  for (const std::string_view text : {"", "\x89PNG", "\2\0\0\0\0\0\0\0{}", "\2\0\0\0\0\0\0\0[]"}) {
    write_bytes(path, bytes_of(text));
    EXPECT_FALSE(load_feature_meta(path));
  }
  EXPECT_FALSE(load_feature_meta(folder.path()));
}

TEST(FeatureFile, AMismatchNamesWhatDiffersBeforeTheIdMadeOfIt) {
  FeatureKey other = sample_key(1);
  other.vision_digest = digest_of(bytes_of("other weights"));
  other.id = sample_key(2).id;
  const auto error = parse_feature(sample_file(), "sample", FeatureExpectations::of(other)).error();
  EXPECT_EQ(error.fault, FeatureFault::kMismatch);
  EXPECT_THAT(error.message, HasSubstr("vision_digest"));
  EXPECT_THAT(error.message, HasSubstr(other.vision_digest.hex()));
}

TEST(FeatureFile, LooksLikeOne) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "f";
  const auto bytes = sample_file();
  write_bytes(path, bytes);
  EXPECT_TRUE(looks_like_feature_file(path));
  write_bytes(path, std::span(bytes).first(600));  // damaged, but inspect should say so
  EXPECT_TRUE(looks_like_feature_file(path));
  write_bytes(path, bytes_of("\x89PNG"));
  EXPECT_FALSE(looks_like_feature_file(path));
  write_bytes(path, {});
  EXPECT_FALSE(looks_like_feature_file(path));
  EXPECT_FALSE(looks_like_feature_file(folder.path()));
  EXPECT_FALSE(looks_like_feature_file(folder.path() / "none"));
}

}  // namespace
}  // namespace chiasm
