// The groups of measurements. Each function runs its cases in processes of their own and returns their rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "measure.h"
#include "tensor/precision.h"

namespace chiasm::bench {

struct Settings {
  std::filesystem::path picture;
  std::vector<std::int64_t> patches{1024, 4096, 16384};
  int threads = 0;  // of stages; kernels are measured at 1 and at this many
  int samples = 5;
  Precision precision = Precision::kExact;  // of stages
  std::string device = "cpu";               // of errors
};

// A checkpoint, and the side of the square whose pixels a picture gets, in its own proportions; 0: what its
// preprocessor_config.json says.
struct Model {
  std::filesystem::path dir;
  std::int64_t side = 0;
};

// The name of the checkpoint's folder, and the precision where it is not the checkpoint's.
inline std::string label(const Model& model, Precision precision) {
  const std::string name = std::filesystem::absolute(model.dir).lexically_normal().filename().string();
  return precision == Precision::kExact ? name : name + " in " + std::string(precision_name(precision));
}

// What the machine can do: the large f32 product and reading memory, on 1 and all threads.
std::vector<Row> measure_ceilings(const Settings& settings);
// Products at the shapes of the 2B beside oneDNN's, attention, row operations.
std::vector<Row> measure_kernels(const Settings& settings);
// How many values of a row change with the number of rows beside it, ours and oneDNN's.
std::vector<Row> measure_row_contract(const Settings& settings);
// Decode, resize, patchify and encode one picture; load, prefill and decode tokens.
std::vector<Row> measure_vision(const Model& model, const Settings& settings);
std::vector<Row> measure_language(const Model& model, const Settings& settings);
// What the second question costs, and many at once, on a picture that is known; and reading its features from disk.
std::vector<Row> measure_questions(const Model& model, const Settings& settings);
// Relative L2 of features and logits in each rounded precision of settings.device against the exact ones there.
std::vector<Row> measure_errors(const Model& model, const Settings& settings);
// Time and peak memory of the vision encoder over settings.patches.
std::vector<Row> measure_patches(const Model& model, const Settings& settings);
// How time grows: encode with patches, prefill with tokens, decode with context and with sequences; on 1 and all
// threads.
std::vector<Row> measure_scaling(const Model& model, const Settings& settings);

}  // namespace chiasm::bench
