// Row operations that need no vector code, for every Ops whose memory is the host's. Thread contract: pure functions.
#pragma once

#include "kernels/ops.h"

namespace chiasm {

// Shapes as Ops::rope_table.
void rope_table_host(const RopeAngles& angles, MatrixView cos, MatrixView sin);
void check_rope_angles(const RopeAngles& angles, std::int64_t rows, std::int64_t pairs);

// As Ops::gather_rows.
void gather_rows_host(ConstMatrixView from, std::span<const std::int32_t> rows, MatrixView to);

// argmax of a host matrix, as Ops::argmax.
void argmax_host(ConstMatrixView x, std::span<std::int32_t> out);

}  // namespace chiasm
