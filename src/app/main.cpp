// The program chiasm: picks the command, and is the border where exceptions end.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>

#include <CLI/CLI.hpp>

#include "app/command.h"
#include "app/console.h"

namespace chiasm {
namespace {

constexpr const char* kDescription =
    "chiasm: look once, ask many. Serves Qwen2-VL models with the vision encoder apart from the language model:\n"
    "a picture is looked at once, and asked about as often as you like.";

constexpr const char* kFooter = R"(Examples:
  chiasm ask -i street.jpg "How many cars are there?" "Is it day or night?"
  chiasm ask -m Qwen2-VL-2B-Instruct -i a.png -i b.png "Which picture shows night?"
  chiasm encode -m Qwen2-VL-2B-Instruct album/*.jpg -o features/
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
                                      add_compare(program),     add_split(program),          add_eval(program)};

  std::vector<std::string> words = mark_plain_words({argv + 1, argv + argc});
  if (words.empty()) {
    Console("chiasm").usage("no command was given: ask, encode, inspect, compare, split or eval");
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
  return Console("chiasm").usage("no command was given: ask, encode, inspect, compare, split or eval");
}

}  // namespace
}  // namespace chiasm

int main(int argc, char** argv) {
  // A reader that leaves (chiasm inspect ... | head) shows as an error of write, which the console takes.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return chiasm::run(argc, argv);
  } catch (const chiasm::OutputLost& lost) {
    return chiasm::Console("chiasm").fault(
        {chiasm::Code::kUnavailable, fmt::format("cannot write to standard output: {}", std::strerror(lost.error))});
  } catch (const std::bad_alloc&) {
    return chiasm::Console("chiasm").fault({chiasm::Code::kResourceExhausted, "out of memory"});
  } catch (const std::system_error& error) {  // threads, above all
    return chiasm::Console("chiasm").fault(
        {chiasm::Code::kResourceExhausted,
         fmt::format("the system refuses what the program needs: {} (fewer --threads may help)", error.what())});
  } catch (const std::exception& error) {
    return chiasm::Console("chiasm").fault(
        {chiasm::Code::kInternal, fmt::format("unexpected failure, please report it: {}", error.what())});
  }
}
