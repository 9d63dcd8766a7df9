// EXIF orientation: found in a TIFF block, applied to a picture.
//
// Leaves finding the block to the codecs. Thread contract: pure functions.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/result.h"
#include "image/image.h"

namespace chiasm {

// Tag 0x0112 of the first directory of a TIFF block, which may begin with "Exif\0\0" (Exif 2.3, section 4.6.4). Nothing
// when it is absent, damaged or not in 1..8: a bad tag is no reason to refuse a picture.
std::optional<int> exif_orientation(std::span<const std::byte> block);

// The size of a picture after it is turned upright: orientations 5..8 swap the sides.
ImageSize upright_size(ImageSize stored, int orientation);

// The picture turned upright from how it is stored.
Result<Image> apply_orientation(Image image, int orientation);

}  // namespace chiasm
