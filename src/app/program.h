// The border of a program: where exceptions end and become exit codes, and how one without commands reads its words.
//
// Thread contract: main.
#pragma once

#include <functional>
#include <string>

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}  // namespace CLI

namespace chiasm {

class Console;

// `name` stands before messages: "chiasm-vision".
int run_program(const std::string& name, const std::function<int()>& run);

// The same for a program of one purpose: `declare` adds its options, `run` is called once they are parsed.
int run_single_program(const std::string& name, const std::string& description, int argc, char** argv,
                       const std::function<void(CLI::App&)>& declare, const std::function<int(Console&)>& run);

}  // namespace chiasm
