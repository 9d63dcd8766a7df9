#include "app/vision_flags.h"

#include <CLI/CLI.hpp>

#include "app/options.h"

namespace chiasm {

void add_vision_flags(CLI::App& app, VisionFlags& flags) {
  add_feature_memory_option(app, flags.feature_memory);
  expect_whole(app.add_option("--max-queued-tokens", flags.max_queued_tokens,
                              "Let pictures of N image tokens together wait for the encoder, and tell others to\ncome "
                              "back (default: 65536)"),
               1, 1ULL << 31);
  expect_whole(app.add_option("--max-picture-tokens", flags.max_picture_tokens,
                              "Refuse pictures and videos of more than N image tokens (default: 32768)"),
               1, 1ULL << 31);
  expect_whole(app.add_option("--max-batch-patches", flags.max_batch_patches,
                              "Encode pictures of N patches together in one pass (default: 8192)"),
               1, 1ULL << 31);
  expect_whole(app.add_option("--decode-threads", flags.decode_threads, "Decode N pictures at a time (default: 2)"), 1,
               256);
}

void apply(const VisionFlags& flags, VisionSideOptions& options) {
  options.memory_bytes = flags.feature_memory.value_or(options.memory_bytes);
  EncodeServiceOptions& service = options.service;
  service.max_queued_tokens = flags.max_queued_tokens.value_or(service.max_queued_tokens);
  service.max_picture_tokens = flags.max_picture_tokens.value_or(service.max_picture_tokens);
  service.max_batch_patches = flags.max_batch_patches.value_or(service.max_batch_patches);
  service.decode_threads = flags.decode_threads.value_or(service.decode_threads);
}

}  // namespace chiasm
