// Which tensors of a checkpoint become integers, and in what groups: for who rounds them and who says what that takes.
// Thread contract: a pure function.
#pragma once

#include <string_view>

#include "tensor/precision.h"
#include "tensor/tensor.h"

namespace chiasm {

// What the tensor of this canonical name is kept in where the sides are computed in `vision` and `language`; kExact for
// what is no matrix.
Precision precision_for(std::string_view name, const Shape& shape, Precision vision, Precision language);

}  // namespace chiasm
