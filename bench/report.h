// The measured rows as tables: what the arithmetic or the bytes cost at least on this machine, and the share reached.
#pragma once

#include <vector>

#include "measure.h"

namespace chiasm::bench {

// Prints every group. Floors come from the rows of the group "ceilings", where there are any.
void print_report(const std::vector<Row>& rows);

}  // namespace chiasm::bench
