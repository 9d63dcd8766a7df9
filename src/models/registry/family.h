// The choice of a family by config.model_type, shared by the three tables. Thread contract: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chiasm {

template <class Make>
struct Family {
  std::string_view model_type;
  Make make;
};

// The family's maker; kUnimplemented names the families there are.
template <class Make>
Result<Make> find_family(std::span<const Family<Make>> families, std::string_view model_type) {
  std::string known;
  for (const Family<Make>& family : families) {
    if (family.model_type == model_type) return family.make;
    known += known.empty() ? "" : ", ";
    known += family.model_type;
  }
  return fail(Code::kUnimplemented, "model_type '{}' is not one this program knows: {}", model_type, known);
}

}  // namespace chiasm
