// Sizes, grids, patch order and positions of Qwen2-VL.

#include "models/qwen2_vl/layout.h"

#include <array>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct ResizeCase {
  Size picture;
  std::int64_t factor, min_pixels, max_pixels;
  Size expected;
};

// The first by hand or for a rule's edge (halves round to even; sides that round to nothing; the limits exactly met),
// the rest drawn at random; all computed by the rule written out in Python, whose round, floor and ceil define it.
constexpr ResizeCase kResizeCases[] = {
    {{224, 224}, 28, 3136, 1003520, {224, 224}},
    {{14, 14}, 28, 3136, 1003520, {56, 56}},
    {{42, 42}, 28, 3136, 1003520, {56, 56}},
    {{70, 70}, 28, 3136, 1003520, {56, 56}},
    {{98, 126}, 28, 3136, 1003520, {112, 112}},
    {{1, 1}, 28, 3136, 1003520, {56, 56}},
    {{1, 200}, 28, 3136, 1003520, {28, 812}},
    {{200, 1}, 28, 3136, 1003520, {812, 28}},
    {{10, 2000}, 28, 3136, 1003520, {28, 812}},
    {{13, 2600}, 28, 3136, 1003520, {28, 812}},
    {{3000, 4000}, 28, 3136, 1003520, {840, 1148}},
    {{4000, 3000}, 28, 3136, 1003520, {1148, 840}},
    {{100, 20000}, 28, 3136, 1003520, {56, 14140}},
    {{20000, 100}, 28, 3136, 1003520, {14140, 56}},
    {{1080, 1920}, 28, 3136, 1003520, {728, 1316}},
    {{1080, 1920}, 28, 3136, 12845056, {1092, 1932}},
    {{56, 56}, 28, 3136, 1003520, {56, 56}},
    {{55, 56}, 28, 3136, 1003520, {56, 56}},
    {{27, 113}, 28, 3136, 1003520, {28, 112}},
    {{1003, 1001}, 28, 3136, 1003520, {980, 980}},
    {{1120, 896}, 28, 3136, 1003520, {1120, 896}},
    {{1121, 896}, 28, 3136, 1003520, {1120, 896}},
    {{1134, 896}, 28, 3136, 1003520, {1120, 896}},
    {{1135, 896}, 28, 3136, 1003520, {1120, 868}},
    {{200, 300}, 28, 12544, 62720, {196, 308}},
    {{256, 256}, 28, 12544, 62720, {224, 224}},
    {{90, 90}, 28, 12544, 62720, {112, 112}},
    {{64000, 64000}, 28, 3136, 1003520, {980, 980}},
    {{1073741824, 1073741824}, 28, 3136, 1003520, {980, 980}},
    {{33, 6600}, 32, 4096, 1003520, {32, 6592}},
    {{448, 448}, 28, 3136, 12845056, {448, 448}},
    {{793, 17082}, 28, 3136, 12845056, {756, 16632}},
    {{1078, 79}, 28, 200704, 401408, {1680, 140}},
    {{2, 1}, 28, 12544, 62720, {168, 84}},
    {{133, 286}, 28, 200704, 401408, {308, 672}},
    {{39, 1}, 32, 12544, 62720, {704, 32}},
    {{950, 11}, 32, 12544, 62720, {1056, 32}},
    {{3, 407}, 28, 12544, 62720, {28, 1316}},
    {{1056, 126445}, 28, 12544, 62720, {28, 2716}},
    {{13, 1578}, 28, 12544, 62720, {28, 1260}},
    {{4763, 34589}, 32, 12544, 62720, {64, 672}},
    {{1, 1}, 28, 3136, 12845056, {56, 56}},
    {{1, 1}, 28, 3136, 12845056, {56, 56}},
    {{1, 1}, 28, 3136, 12845056, {56, 56}},
    {{527, 19}, 32, 200704, 401408, {2368, 96}},
    {{1, 139}, 28, 12544, 62720, {28, 1344}},
    {{2006, 13}, 32, 3136, 12845056, {704, 32}},
    {{29, 1008}, 32, 3136, 12845056, {32, 1024}},
    {{583, 2110}, 28, 3136, 1003520, {504, 1904}},
    {{899, 78409}, 32, 3136, 1003520, {96, 9344}},
    {{100, 5939}, 28, 3136, 12845056, {112, 5936}},
    {{2, 26}, 28, 200704, 401408, {140, 1624}},
    {{1, 103}, 28, 3136, 12845056, {28, 588}},
    {{21, 66}, 28, 12544, 62720, {84, 224}},
    {{11, 90}, 28, 3136, 12845056, {28, 168}},
    {{479, 63}, 28, 3136, 12845056, {476, 56}},
    {{658, 90}, 32, 12544, 62720, {672, 64}},
    {{652, 8}, 32, 12544, 62720, {1024, 32}},
    {{8, 21}, 28, 3136, 1003520, {56, 112}},
    {{350, 8}, 28, 200704, 401408, {2968, 84}},
    {{20, 1}, 28, 200704, 401408, {2016, 112}},
    {{2, 1}, 28, 200704, 401408, {644, 336}},
    {{2003, 237}, 32, 3136, 1003520, {2016, 224}},
    {{6529, 4027}, 32, 12544, 62720, {288, 192}},
    {{74, 8}, 32, 3136, 12845056, {192, 32}},
    {{2, 56}, 28, 12544, 62720, {28, 616}},
    {{2465, 88}, 32, 200704, 401408, {2464, 96}},
    {{103, 169}, 28, 3136, 12845056, {112, 168}},
    {{1181, 20600}, 28, 3136, 1003520, {224, 4172}},
    {{26, 218}, 28, 3136, 12845056, {28, 224}},
    {{10, 1487}, 28, 200704, 401408, {56, 5488}},
};

TEST(SmartResize, Table) {
  for (const ResizeCase& c : kResizeCases) {
    const auto size = smart_resize(c.picture, c.factor, c.min_pixels, c.max_pixels);
    ASSERT_TRUE(size) << size.error().message;
    EXPECT_EQ(*size, c.expected) << c.picture.height << " x " << c.picture.width << " gave " << size->height << " x "
                                 << size->width << ", expected " << c.expected.height << " x " << c.expected.width;
  }
}

TEST(SmartResize, ErrorsNameTheSize) {
  for (const Size bad : {Size{0, 5}, Size{5, 0}, Size{-1, 5}, Size{5, std::int64_t{1} << 40}}) {
    const auto size = smart_resize(bad, 28, 3136, 1003520);
    ASSERT_FALSE(size);
    EXPECT_EQ(size.error().code, Code::kInvalidArgument);
  }
  const auto thin = smart_resize({1, 201}, 28, 3136, 1003520);
  ASSERT_FALSE(thin);
  EXPECT_THAT(thin.error().message, HasSubstr("201"));
  EXPECT_FALSE(smart_resize({2001, 10}, 28, 3136, 1003520));
  EXPECT_TRUE(smart_resize({2000, 10}, 28, 3136, 1003520));
}

// The reference implementation's answers, errors among them.
TEST(SmartResize, EqualsTheReference) {
  const Json json = load_json(goldens_dir() / "images" / "smart_resize.json");
  const auto cases = json.root().elements();
  ASSERT_TRUE(cases);
  ASSERT_GE(cases->size(), 100U);
  for (const JsonValue& c : *cases) {
    const auto number = [&](const char* key) { return c.at(key)->integer().value(); };
    const Size picture{number("height"), number("width")};
    const auto size = smart_resize(picture, number("factor"), number("min_pixels"), number("max_pixels"));
    const auto resized = c.find("resized");
    ASSERT_EQ(size.has_value(), resized.has_value()) << picture.height << " x " << picture.width;
    if (!resized) continue;
    const auto sides = resized->elements();
    EXPECT_EQ(size->height, sides->at(0).integer().value()) << picture.height << " x " << picture.width;
    EXPECT_EQ(size->width, sides->at(1).integer().value()) << picture.height << " x " << picture.width;
  }
}

TEST(SmartResize, NoSideIsEverZero) {
  const auto size = smart_resize({1, 100}, 28, 0, 1003520);
  ASSERT_TRUE(size);
  EXPECT_EQ(*size, (Size{28, 112}));
}

ModelConfig config_of_family() {
  ModelConfig config;
  config.model_type = "qwen2_vl";
  return config;
}

TEST(Layout, GridOfPicturesAndVideos) {
  const auto layout = make_qwen2_vl_layout(config_of_family());
  const PreprocessorConfig config;
  EXPECT_EQ(layout->grid_of({112, 84}, 1, config), (Grid{1, 8, 6}));
  EXPECT_EQ(layout->grid_of({112, 84}, 4, config), (Grid{2, 8, 6}));
  EXPECT_EQ(layout->grid_of({112, 84}, 5, config), (Grid{3, 8, 6}));
  EXPECT_EQ((Grid{3, 8, 6}.rows(2)), 36);
  const auto size = layout->target_size({3000, 4000}, config);
  ASSERT_TRUE(size);
  EXPECT_EQ(*size, (Size{840, 1148}));
}

TEST(Layout, PatchesComeInMergeBlocks) {
  const auto positions = patch_positions({1, 2, 4}, 2);
  using P = PatchPosition;
  EXPECT_THAT(positions, ElementsAre(P{0, 0}, P{0, 1}, P{1, 0}, P{1, 1}, P{0, 2}, P{0, 3}, P{1, 2}, P{1, 3}));
  const auto unmerged = patch_positions({1, 2, 2}, 1);
  EXPECT_THAT(unmerged, ElementsAre(P{0, 0}, P{0, 1}, P{1, 0}, P{1, 1}));
  // Every frame group repeats the first, and every patch comes once.
  const auto video = patch_positions({2, 6, 3}, 3);
  ASSERT_EQ(video.size(), 36U);
  std::array<int, 18> seen{};
  for (std::size_t i = 0; i < 18; ++i) {
    EXPECT_EQ(video[i], video[i + 18]);
    ++seen[static_cast<std::size_t>(video[i].row) * 3 + static_cast<std::size_t>(video[i].col)];
  }
  EXPECT_THAT(seen, testing::Each(1));
}

TEST(PositionIds, TextOnly) {
  const auto layout = make_qwen2_vl_layout(config_of_family());
  const std::vector<Span> spans{{.length = 2}, {.length = 1}};
  const Positions positions = layout->position_ids(spans);
  for (const auto& ids : positions.position_ids) EXPECT_THAT(ids, ElementsAre(0, 1, 2));
  EXPECT_EQ(positions.rope_delta, 0);
  EXPECT_EQ(layout->position_ids({}).rope_delta, 0);
}

TEST(PositionIds, PictureThenText) {
  const auto layout = make_qwen2_vl_layout(config_of_family());
  const std::vector<Span> spans{{.length = 2}, {.length = 6, .vision = true, .grid = {1, 4, 6}}, {.length = 2}};
  const Positions positions = layout->position_ids(spans);
  EXPECT_THAT(positions.position_ids[0], ElementsAre(0, 1, 2, 2, 2, 2, 2, 2, 5, 6));
  EXPECT_THAT(positions.position_ids[1], ElementsAre(0, 1, 2, 2, 2, 3, 3, 3, 5, 6));
  EXPECT_THAT(positions.position_ids[2], ElementsAre(0, 1, 2, 3, 4, 2, 3, 4, 5, 6));
  EXPECT_EQ(positions.rope_delta, -3);
}

// After a video, text goes on from the largest position plus one, also where time is the longest side.
TEST(PositionIds, VideoLongerThanItsSides) {
  const auto layout = make_qwen2_vl_layout(config_of_family());
  const std::vector<Span> spans{{.length = 1},
                                {.length = 4, .vision = true, .grid = {4, 2, 2}},
                                {.length = 1},
                                {.length = 2, .vision = true, .grid = {1, 2, 4}},
                                {.length = 1}};
  const Positions positions = layout->position_ids(spans);
  EXPECT_THAT(positions.position_ids[0], ElementsAre(0, 1, 2, 3, 4, 5, 6, 6, 8));
  EXPECT_THAT(positions.position_ids[1], ElementsAre(0, 1, 1, 1, 1, 5, 6, 6, 8));
  EXPECT_THAT(positions.position_ids[2], ElementsAre(0, 1, 1, 1, 1, 5, 6, 7, 8));
  EXPECT_EQ(positions.rope_delta, 0);
}

}  // namespace
}  // namespace chiasm
