// What a vision side says in /metrics and /v1/status: its tiers, its encoder's queue, its decoders.
//
// Thread contract: any thread.
#pragma once

#include "base/metrics.h"
#include "roles/eye.h"
#include "roles/vision_side.h"

namespace chiasm {

EyeStatus vision_status(const VisionSide& side);
void read_vision_metrics(const VisionSide& side, MetricReader& reader);

}  // namespace chiasm
