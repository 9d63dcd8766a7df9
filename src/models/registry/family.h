// The choice of a family by config.model_type, shared by the three tables. Thread contract: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "models/config.h"

namespace chiasm {

template <class Make>
struct Family {
  std::string_view model_type;
  Make make;
};

// The family's maker for a config that check_runnable lets pass; kUnimplemented names the families there are.
template <class Make>
Result<Make> find_family(std::span<const Family<Make>> families, const ModelConfig& config) {
  RETURN_IF_ERROR(check_runnable(config, config.source));
  std::string known;
  for (const Family<Make>& family : families) {
    if (family.model_type == config.model_type) return family.make;
    known += known.empty() ? "" : ", ";
    known += family.model_type;
  }
  return fail(Code::kUnimplemented, "{}: field 'model_type': '{}' is not supported here: expected {}", config.source,
              config.model_type, known);
}

}  // namespace chiasm
