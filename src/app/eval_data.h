// The questions of an evaluation folder: truth.json, and pair.json and video.json where they are there.
//
// Thread contract: plain values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/pictures.h"
#include "base/result.h"

namespace chiasm {

struct EvalQuestion {
  std::string question, answer, kind;
  std::optional<std::vector<std::int32_t>> reference_ids;  // what the reference implementation generated
};

// Questions about the same pictures.
struct EvalItem {
  std::vector<PictureInput> pictures;
  std::vector<EvalQuestion> questions;
};

// truth.json: [{image, questions: [{question, answer, kind}], reference?: {question, generated_ids}}]; pair.json:
// {images, questions, reference?} or a list of these; video.json: {frames, questions, reference?} or a list. Errors
// name file and field.
Result<std::vector<EvalItem>> load_eval(const std::filesystem::path& dir);

}  // namespace chiasm
