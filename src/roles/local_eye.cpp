#include "roles/local_eye.h"

#include <utility>

#include "roles/vision_metrics.h"

namespace chiasm {

Result<Sight> LocalEye::look(const LookRequest& request) {
  LookOptions options;
  options.bounds = {request.min_pixels, request.max_pixels};
  options.tenant = request.tenant;
  options.deadline = request.deadline;
  options.cancel = request.cancel;
  ASSIGN_OR_RETURN(SeenPicture seen, side_.look(request.files, options));
  return Sight{std::move(seen.feature), seen.joined ? "joined" : std::string(source_name(seen.source)), seen.fetch_ms};
}

Result<Sight> LocalEye::find(const FeatureId& id, std::string_view tenant, Deadline, const CancelFlag*) {
  ASSIGN_OR_RETURN(SeenPicture seen, side_.find(id, tenant));
  return Sight{std::move(seen.feature), std::string(source_name(seen.source)), seen.fetch_ms};
}

Status LocalEye::forget(const FeatureId& id, std::string_view tenant, Deadline) { return side_.forget(id, tenant); }

EyeStatus LocalEye::status() const { return vision_status(side_); }
void LocalEye::read_metrics(MetricReader& reader) const { read_vision_metrics(side_, reader); }

}  // namespace chiasm
