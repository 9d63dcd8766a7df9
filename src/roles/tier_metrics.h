// What the feature tiers of a server say in /metrics and /v1/status.
//
// Thread contract: any thread.
#pragma once

#include "base/metrics.h"
#include "features/feature_source.h"
#include "roles/eye.h"

namespace chiasm {

EyeStatus tier_status(const TieredFeatureSource& source);
void read_tier_metrics(const TieredFeatureSource& source, MetricReader& reader);

}  // namespace chiasm
