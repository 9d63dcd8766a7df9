#include "image/orientation.h"

#include <gtest/gtest.h>

namespace chiasm {
namespace {

std::vector<std::byte> tiff(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

TEST(Orientation, IsReadInBothByteOrders) {
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0})), 6);
  EXPECT_EQ(exif_orientation(tiff({'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 3, 0, 0})), 3);
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 4, 0, 1, 0, 0, 0, 8, 0, 0, 0})), 8);
}

TEST(Orientation, DamageMeansNone) {
  EXPECT_EQ(exif_orientation({}), std::nullopt);
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 42, 0, 255, 255, 255, 255})), std::nullopt);
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 43, 0, 8, 0, 0, 0, 0, 0})), std::nullopt);
  // More entries announced than there are; an orientation out of range; a wrong type.
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 42, 0, 8, 0, 0, 0, 255, 255, 0x12, 1})), std::nullopt);
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0})),
            std::nullopt);
  EXPECT_EQ(exif_orientation(tiff({'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 2, 0, 1, 0, 0, 0, 6, 0, 0, 0})),
            std::nullopt);
}

// Where the stored top-left pixel goes, by the table of Exif 2.3; and a size larger than a copy block.
TEST(Orientation, MovesTheFirstPixelToItsCorner) {
  const ImageSize stored{70, 41};
  Image image = Image::create(stored).value();
  image.row(0)[0] = 9;  // top left
  image.row(0)[3] = 5;  // and its right neighbour
  struct Place {
    std::int64_t x, y, neighbour_x, neighbour_y;
  };
  const Place places[9] = {{},           {0, 0, 1, 0},   {69, 0, 68, 0},   {69, 40, 68, 40}, {0, 40, 1, 40},
                           {0, 0, 0, 1}, {40, 0, 40, 1}, {40, 69, 40, 68}, {0, 69, 0, 68}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto upright = apply_orientation(image, orientation);
    ASSERT_TRUE(upright);
    EXPECT_EQ(upright->size(), upright_size(stored, orientation));
    const Place& place = places[orientation];
    EXPECT_EQ(upright->row(place.y)[3 * place.x], 9) << orientation;
    EXPECT_EQ(upright->row(place.neighbour_y)[3 * place.neighbour_x], 5) << orientation;
  }
  EXPECT_FALSE(apply_orientation(image, 9));
}

}  // namespace
}  // namespace chiasm
