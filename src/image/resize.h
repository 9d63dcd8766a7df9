// Antialiased bicubic scaling, equal to the Image.resize(size, Image.BICUBIC) of Pillow 13 bit for bit on 8-bit RGB.
//
// Leaves the choice of the size to models/.../layout. Thread contract: pure functions; a given pool is used for the
// length of the call.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "image/image.h"

namespace chiasm {

// Two separable passes with an 8-bit picture between them: horizontal first, unless the vertical one takes away rows
// and more than twice as many of them as the horizontal one takes columns (so since Pillow 13.0). The filter (a = -0.5)
// widens by the scale when shrinking; weights are normalised in double, then fixed point with 22 bits (Pillow,
// src/libImaging/Resample.c). A pass whose size does not change is skipped. Errors: a side of the target not in
// [1, 2^31), an empty image.
Result<Image> resize_bicubic(const Image& image, ImageSize target, ThreadPool* pool = nullptr);

// The same in plain loops: what the fast version is tested against.
Result<Image> resize_bicubic_reference(const Image& image, ImageSize target);

}  // namespace chiasm
