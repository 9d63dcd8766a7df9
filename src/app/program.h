// The border of a program: where exceptions end and become exit codes, and how one without commands reads its words.
//
// Thread contract: main.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "base/result.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}  // namespace CLI

namespace chiasm {

class Console;

// An option that shows itself to be wrong only when it is looked at.
struct WrongUsage {
  std::string message;
};

// The value; an invalid argument ends the program as wrong usage.
template <class T>
Result<T> or_usage(Result<T> result) {
  if (!result && result.error().code == Code::kInvalidArgument) throw WrongUsage{result.error().message};
  return result;
}

// `name` stands before messages: "chiasm-vision".
int run_program(const std::string& name, const std::function<int()>& run);

// The same for a program of one purpose: `declare` adds its options, `run` is called once they are parsed.
int run_single_program(const std::string& name, const std::string& description, int argc, char** argv,
                       const std::function<void(CLI::App&)>& declare, const std::function<int(Console&)>& run);

}  // namespace chiasm
