// NumPy's .npy files (format 1.0 to 3.0), the reading side. Object arrays (pickle) are refused.
//
// Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chiasm {

struct NpyArray {
  std::vector<std::int64_t> shape;
  std::vector<double> values;  // row-major, whatever the file's order; f2, f4, f8, i1..i8, u1..u8 read exactly
};

// kInvalidArgument with what was expected and what came; `limit` bounds the number of values before anything is
// allocated. Little and big endian, C and Fortran order.
Result<NpyArray> parse_npy(std::string_view bytes, std::uint64_t limit);

}  // namespace chiasm
