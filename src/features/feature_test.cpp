#include "features/feature.h"

#include <cmath>
#include <limits>
#include <set>

#include <gmock/gmock.h>

#include "features/test_features.h"

namespace chiasm {
namespace {

using ::testing::HasSubstr;

FeatureId id_of(std::string_view tenant, std::string_view vision, std::string_view preprocess,
                const std::vector<std::string_view>& files) {
  std::vector<std::span<const std::byte>> spans;
  for (const auto& file : files) spans.push_back(bytes_of(file));
  return feature_key(tenant, digest_of(bytes_of(vision)), digest_of(bytes_of(preprocess)), spans).id;
}

TEST(FeatureKey, EveryFieldCounts) {
  const std::vector<FeatureId> ids = {
      id_of("t", "v", "p", {"picture"}),
      id_of("u", "v", "p", {"picture"}),
      id_of("", "v", "p", {"picture"}),
      id_of("t", "w", "p", {"picture"}),
      id_of("t", "v", "q", {"picture"}),
      id_of("t", "p", "v", {"picture"}),
      id_of("t", "v", "p", {"picturf"}),
      id_of("t", "v", "p", {"picture "}),
      id_of("t", "v", "p", {""}),
      id_of("t", "v", "p", {}),
      id_of("t", "v", "p", {"pict", "ure"}),
      id_of("t", "v", "p", {"pic", "ture"}),
      id_of("t", "v", "p", {"ure", "pict"}),
      id_of("t", "v", "p", {"", "picture"}),
  };
  EXPECT_EQ(std::set<FeatureId>(ids.begin(), ids.end()).size(), ids.size());
  EXPECT_EQ(id_of("t", "v", "p", {"picture"}), ids[0]);
}

// A picture file whose bytes are what the digest of a list of frames is made from has that list's image_digest, but not
// its id.
TEST(FeatureKey, AFileCannotPoseAsAListOfFrames) {
  const Digest first = digest_of(bytes_of("a")), second = digest_of(bytes_of("b"));
  std::string forged;
  const auto number = [&](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) forged += static_cast<char>(value >> (8 * i));
  };
  const auto frame = [&](char type, std::string_view name, std::uint64_t size) {
    forged += type;
    number(name.size());
    forged += name;
    number(size);
  };
  frame('i', "frames", 8);
  number(2);
  for (const Digest& digest : {first, second}) {
    frame('d', "frame", 32);
    forged.append(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  }
  const std::vector<std::span<const std::byte>> list = {bytes_of("a"), bytes_of("b")};
  const std::vector<std::span<const std::byte>> file = {bytes_of(forged)};
  ASSERT_EQ(image_digest(list), image_digest(file)) << "the forgery is no longer one: mend it";
  EXPECT_NE(id_of("t", "v", "p", {"a", "b"}), id_of("t", "v", "p", {forged}));
}

TEST(FeatureKey, AFeatureBelongsToTheTenantItsIdWasMadeFor) {
  const std::vector<std::string> frames = {"a", "b", "c", "d", "e", "f", "g"};
  for (const std::int64_t temporal : {1, 2, 3}) {
    for (std::size_t count = 1; count <= frames.size(); ++count) {
      std::vector<std::span<const std::byte>> files;
      for (std::size_t i = 0; i < count; ++i) files.push_back(bytes_of(frames[i]));
      const auto key = feature_key("mine", digest_of(bytes_of("v")), digest_of(bytes_of("p")), files);
      const std::int64_t groups = (static_cast<std::int64_t>(count) + temporal - 1) / temporal;
      const FeatureMeta meta = make_feature(key, {groups, 4, 6}, "m", Matrix(1, 1)).meta;
      EXPECT_TRUE(belongs_to(meta, "mine", temporal)) << count;
      EXPECT_FALSE(belongs_to(meta, "", temporal));
      EXPECT_FALSE(belongs_to(meta, "theirs", temporal));
      FeatureMeta other = meta;
      other.image_digest.bytes[3] ^= 1;
      EXPECT_FALSE(belongs_to(other, "mine", temporal));
      other = meta;
      other.grid_thw[0] = groups + 1;  // never so many frame groups of so few files
      EXPECT_FALSE(belongs_to(other, "mine", temporal));
      for (const std::int64_t wrong : {std::int64_t{0}, std::int64_t{-3}, INT64_MAX}) {
        other.grid_thw[0] = wrong;
        EXPECT_FALSE(belongs_to(other, "mine", temporal));
      }
    }
  }
}

TEST(FeatureKey, ImageDigestOfAFileIsWhatB2sumPrints) {
  const std::span<const std::byte> file = bytes_of("abc");
  // RFC 7693, appendix A: BLAKE2b-512 of "abc", the first half.
  EXPECT_EQ(image_digest({&file, 1}).hex(), "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1");
}

TEST(FeatureId, Hex) {
  const FeatureId id = sample_key(1).id;
  EXPECT_EQ(FeatureId::from_hex(id.hex()).value(), id);
  EXPECT_FALSE(FeatureId::from_hex("abc").has_value());
}

TEST(CheckShape, GridRowsAndWidth) {
  EXPECT_TRUE(check_shape({1, 16, 20}, 80, 1536, 2, 1536).has_value());
  EXPECT_TRUE(check_shape({1, 16, 20}, 80, 1536, 0, 0).has_value());
  EXPECT_TRUE(check_shape({3, 4, 4}, 12, 8, 2, 8).has_value());
  EXPECT_TRUE(check_shape({1, 4, 4}, 16, 8, 0, 0).has_value());  // no merging
  EXPECT_FALSE(check_shape({1, 16, 20}, 79, 1536, 2, 1536).has_value());
  EXPECT_FALSE(check_shape({1, 16, 20}, 320, 1536, 2, 1536).has_value());
  EXPECT_FALSE(check_shape({1, 16, 20}, 80, 1535, 2, 1536).has_value());
  EXPECT_FALSE(check_shape({1, 15, 20}, 75, 8, 2, 8).has_value());  // 15 is odd
  EXPECT_FALSE(check_shape({4, 1, 1}, 1, 8, 0, 0).has_value());     // frames do not merge
  EXPECT_FALSE(check_shape({0, 16, 20}, 80, 8, 2, 8).has_value());
  EXPECT_FALSE(check_shape({-1, -16, 20}, 80, 8, 2, 8).has_value());
  EXPECT_FALSE(check_shape({1, 16, 20}, 0, 8, 2, 8).has_value());
  EXPECT_FALSE(check_shape({1, 16, 20}, 80, 0, 2, 0).has_value());
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  EXPECT_FALSE(check_shape({huge, huge, huge}, 80, 8, 2, 8).has_value());
  EXPECT_FALSE(check_shape({1'000'000, 1'000'000, 1'000'000}, huge, 8, 0, 8).has_value());
  EXPECT_FALSE(check_shape({1, 16, 20}, 80, 8, huge, 8).has_value());
}

TEST(CheckRows, NamesTheValueThatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    Feature feature = sample_feature(1);
    EXPECT_TRUE(check_rows(feature.meta, feature.rows.view(), 2, 8).has_value());
    feature.rows.row(4)[7] = bad;
    EXPECT_THAT(check_rows(feature.meta, feature.rows.view(), 2, 8).error().message, HasSubstr("row 4, column 7"));
  }
}

TEST(RoundFeature, HalvesWithinTheirUnitRoundoff) {
  for (const auto& [dtype, roundoff] : {std::pair{DType::kF16, 0x1p-11F}, {DType::kBF16, 0x1p-8F}}) {
    const Feature exact = sample_feature(3);
    Feature feature = sample_feature(3);
    ASSERT_TRUE(round_feature(feature, dtype).has_value());
    EXPECT_EQ(feature.meta.dtype, dtype);
    bool changed = false;
    for (std::int64_t i = 0; i < exact.rows.size(); ++i) {
      const float x = exact.rows.data()[i], y = feature.rows.data()[i];
      EXPECT_LE(std::abs(x - y), std::abs(x) * roundoff + 0x1p-25F);
      changed = changed || x != y;
    }
    EXPECT_TRUE(changed);
    const auto once = values_of(feature);
    ASSERT_TRUE(round_feature(feature, dtype).has_value());
    EXPECT_EQ(values_of(feature), once);
    EXPECT_FALSE(round_feature(feature, DType::kF32).has_value());  // what was lost does not come back
    EXPECT_FALSE(round_feature(feature, dtype == DType::kF16 ? DType::kBF16 : DType::kF16).has_value());
  }
}

TEST(RoundFeature, AValueThatDoesNotFitLeavesTheFeatureAlone) {
  Feature feature = sample_feature(3);
  feature.rows.row(5)[7] = 65520.0F;  // the first that rounds to infinity
  const auto before = values_of(feature);
  EXPECT_THAT(round_feature(feature, DType::kF16).error().message, HasSubstr("65520"));
  EXPECT_EQ(values_of(feature), before);
  EXPECT_EQ(feature.meta.dtype, DType::kF32);
  EXPECT_TRUE(round_feature(feature, DType::kBF16).has_value());
  Feature largest = sample_feature(3);
  largest.rows.row(5)[7] = 65519.0F;
  EXPECT_TRUE(round_feature(largest, DType::kF16).has_value());
  EXPECT_EQ(largest.rows.row(5)[7], 65504.0F);
}

TEST(CheckFeature, ARefusalNamesBothDigests) {
  const FeatureMeta meta = sample_feature(1).meta;
  const Digest other = digest_of(bytes_of("another encoder"));
  EXPECT_TRUE(check_feature(meta, meta.vision_digest, {}).has_value());
  const auto refused = check_feature(meta, other, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(refused.error().message, HasSubstr(meta.vision_digest.hex()));
  EXPECT_THAT(refused.error().message, HasSubstr(other.hex()));
  const std::array<Digest, 2> wrong = {digest_of(bytes_of("x")), digest_of(bytes_of("y"))};
  EXPECT_FALSE(check_feature(meta, other, wrong).has_value());
  const std::array<Digest, 2> accepted = {wrong[0], meta.vision_digest};
  EXPECT_TRUE(check_feature(meta, other, accepted).has_value());
}

}  // namespace
}  // namespace chiasm
