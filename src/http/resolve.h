// Names into addresses, within a deadline.
//
// Thread contract: any thread.
#pragma once

#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"

namespace chiasm {

// As resolve() of client.h, but given up at `deadline` (kDeadlineExceeded) or when cancelled (kCancelled).
Result<std::vector<std::string>> resolve_until(const std::string& host, Deadline deadline, const CancelFlag* cancel);

}  // namespace chiasm
