#include "roles/vision_metrics.h"

#include "roles/tier_metrics.h"

namespace chiasm {

EyeStatus vision_status(const VisionSide& side) {
  EyeStatus out = tier_status(side.source());
  const EncodeServiceStatus service = side.encode_status();
  out.queued_tokens = static_cast<std::uint64_t>(service.queued_tokens);
  out.batches = service.batches;
  out.pictures = service.pictures;
  return out;
}

void read_vision_metrics(const VisionSide& side, MetricReader& reader) {
  read_tier_metrics(side.source(), reader);
  const EncodeServiceStatus service = side.encode_status();
  const auto number = [](auto value) { return static_cast<double>(value); };
  reader.gauge("chiasm_encoder_queued_pictures", "Pictures that wait for the encoder or are in it",
               number(service.queued_pictures));
  reader.gauge("chiasm_encoder_queued_tokens", "Their image tokens", number(service.queued_tokens));
  reader.counter("chiasm_encoder_batches_total", "Passes of the vision encoder", number(service.batches));
  reader.counter("chiasm_encoder_pictures_total", "Pictures that went through it", number(service.pictures));
  reader.counter("chiasm_encoder_patches_total", "Patches that went through it", number(service.patches));
  reader.counter("chiasm_encoder_busy_seconds_total", "Time spent in passes", service.busy_ms / 1e3);
  reader.counter("chiasm_encoder_refused_total", "Pictures refused because the queue was full",
                 number(service.refused));
  reader.counter("chiasm_encoder_dropped_total", "Pictures that nobody waited for any more", number(service.dropped));
  reader.counter("chiasm_encoder_failed_total", "Pictures that could not be decoded or encoded",
                 number(service.failed));
}

}  // namespace chiasm
