// What main needs of a command: its command line, and the function that does it.
//
// Each command file adds its own subcommand and keeps what was parsed in a shared options struct of its own.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
}

namespace chiasm {

class Console;

struct Command {
  CLI::App* app = nullptr;
  std::function<int(Console&)> run;  // gives the exit code
};

// A video is a list of words on the command line; CLI11 would take the question for one more frame. So the lists are
// taken out beforehand: --video FRAME... becomes --video N, and list N is here.
using FrameLists = std::vector<std::vector<std::string>>;

// A list takes words while they name a file or end like a picture's name, and ends at any option and at "--".
std::vector<std::string> take_frame_lists(std::vector<std::string> words, FrameLists& lists);

Command add_ask(CLI::App& program, const FrameLists& frames);
Command add_encode(CLI::App& program);
Command add_inspect(CLI::App& program);
Command add_compare(CLI::App& program);
Command add_split(CLI::App& program);
Command add_eval(CLI::App& program);

}  // namespace chiasm
