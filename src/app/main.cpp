// The program chiasm: picks the command.
#include <algorithm>
#include <string_view>

#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/console.h"
#include "app/program.h"

namespace chiasm {
namespace {

constexpr const char* kDescription =
    "chiasm: look once, ask many. Serves Qwen2-VL models with the vision encoder apart from the language model:\n"
    "a picture is looked at once, and asked about as often as you like.";

constexpr const char* kFooter = R"(Examples:
  chiasm ask -i street.jpg "How many cars are there?" "Is it day or night?"
  chiasm ask -m Qwen2-VL-2B-Instruct -i a.png -i b.png "Which picture shows night?"
  chiasm encode -m Qwen2-VL-2B-Instruct album/*.jpg -o features/
  chiasm serve                                               the API and a page on http://localhost:8080
  chiasm COMMAND --help      every command has its own examples

Environment:
  CHIASM_MODEL       model folder where -m is absent; else the demo model
  XDG_CACHE_HOME     features of known pictures lie in $XDG_CACHE_HOME/chiasm/features (default: ~/.cache)
  NO_COLOR           no bold text on a terminal

Exit codes:
  0  success
  1  the input or the model is at fault: the message says how
  2  wrong usage
  3  compare: the drift is beyond the tolerance
  130, 143  stopped by Ctrl-C or a request to end)";

// The subcommand that was being parsed, for messages.
std::string parsed_name(const CLI::App& program) {
  for (const CLI::App* app : program.get_subcommands()) return "chiasm " + app->get_name();
  return "chiasm";
}

int run(int argc, char** argv) {
  CLI::App program(kDescription, "chiasm");
  program.footer(kFooter);
  program.set_version_flag("--version", std::string("chiasm ") + CHIASM_VERSION);
  program.get_formatter()->column_width(28);
  program.fallthrough(false);
  FrameLists frames;
  const std::vector<Command> commands{add_ask(program, frames), add_encode(program, frames), add_inspect(program),
                                      add_compare(program),     add_split(program),          add_quantize(program),
                                      add_eval(program),        add_serve(program)};

  std::vector<std::string> words = mark_plain_words({argv + 1, argv + argc});
  if (words.empty()) {
    Console("chiasm").usage("no command was given: ask, encode, serve, inspect, compare, split or eval");
    return kExitUsage;
  }
  if (words.front() == "ask" || words.front() == "encode") words = take_frame_lists(std::move(words), frames);
  try {
    std::reverse(words.begin(), words.end());  // as CLI11 wants them
    program.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    Console("chiasm").print(program.help());
    return kExitSuccess;
  } catch (const CLI::CallForVersion& version) {
    Console("chiasm").line("{}", version.what());
    return kExitSuccess;
  } catch (const CLI::ParseError& error) {
    return Console(parsed_name(program)).usage(error.what());
  }
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    Console console("chiasm " + command.app->get_name());
    return command.run(console);
  }
  return Console("chiasm").usage("no command was given: ask, encode, serve, inspect, compare, split or eval");
}

}  // namespace
}  // namespace chiasm

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "serve") return chiasm::run_serve(argc - 1, argv + 1);
  return chiasm::run_program("chiasm", [&] { return chiasm::run(argc, argv); });
}
