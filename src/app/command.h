// What main needs of a command: its command line, and the function that does it.
//
// Each command file adds its own subcommand and keeps what was parsed in a shared options struct of its own.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library says it so
class App;
class Option;
}  // namespace CLI

namespace chiasm {

class Console;

struct Command {
  CLI::App* app = nullptr;
  std::function<int(Console&)> run;  // gives the exit code
};

// A video is a list of words on the command line; CLI11 would take the question for one more frame. So the lists are
// taken out beforehand: --video FRAME... becomes --video N, and list N is here.
using FrameLists = std::vector<std::vector<std::string>>;

// A list takes words while they name a file or end like a picture's name, and ends at any option and at "--". A first
// word that is neither is taken too: check_frame_lists() calls it wrong.
std::vector<std::string> take_frame_lists(std::vector<std::string> words, FrameLists& lists);
void add_video_option(CLI::App& app, std::vector<std::size_t>& videos);
Status check_frame_lists(const FrameLists& lists);

// What stands behind "--" is a plain word even where it begins with "-"; CLI11 only believes that of the words that an
// argument still needs. So these words are marked, "--" is dropped, and arguments take the mark off again.
std::vector<std::string> mark_plain_words(std::vector<std::string> words);

// Arguments without a dash: one word, or several.
CLI::Option* add_word(CLI::App& app, const std::string& name, std::string& word, const std::string& help);
CLI::Option* add_words(CLI::App& app, const std::string& name, std::vector<std::string>& words,
                       const std::string& help);

Command add_ask(CLI::App& program, const FrameLists& frames);
Command add_encode(CLI::App& program, const FrameLists& frames);
Command add_inspect(CLI::App& program);
Command add_compare(CLI::App& program);
Command add_split(CLI::App& program);
Command add_quantize(CLI::App& program);
Command add_eval(CLI::App& program);
Command add_serve(CLI::App& program);
int run_serve(int argc, char** argv);  // argv[0] is "serve"

}  // namespace chiasm
