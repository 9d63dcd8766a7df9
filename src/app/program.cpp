#include "app/program.h"

#include <csignal>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>

#include <CLI/CLI.hpp>

#include "app/console.h"
#include "base/heap.h"

namespace chiasm {

int run_program(const std::string& name, const std::function<int()>& run) {
  // A reader that leaves (chiasm inspect ... | head) shows as an error of write, which the console takes.
  std::signal(SIGPIPE, SIG_IGN);
  return_large_blocks();
  try {
    return run();
  } catch (const OutputLost& lost) {
    return Console(name).fault(
        {Code::kUnavailable, fmt::format("cannot write to standard output: {}", std::strerror(lost.error))});
  } catch (const std::bad_alloc&) {
    return Console(name).fault({Code::kResourceExhausted, "out of memory"});
  } catch (const std::system_error& error) {  // threads, above all
    return Console(name).fault(
        {Code::kResourceExhausted,
         fmt::format("the system refuses what the program needs: {} (fewer --threads may help)", error.what())});
  } catch (const std::exception& error) {
    return Console(name).fault(
        {Code::kInternal, fmt::format("unexpected failure, please report it: {}", error.what())});
  }
}

int run_single_program(const std::string& name, const std::string& description, int argc, char** argv,
                       const std::function<void(CLI::App&)>& declare, const std::function<int(Console&)>& run) {
  return run_program(name, [&] {
    Console console(name);
    CLI::App app(description, name);
    app.set_version_flag("--version", name + " " + CHIASM_VERSION);
    app.get_formatter()->column_width(28);
    declare(app);
    try {
      app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      console.print(app.help());
      return kExitSuccess;
    } catch (const CLI::CallForVersion& version) {
      console.line("{}", version.what());
      return kExitSuccess;
    } catch (const CLI::ConfigError& error) {  // of a name in the file that no option has; the library says INI
      const CLI::Option* const file = app.get_config_ptr();
      std::string what = error.what();
      if (const std::size_t name = what.rfind(' '); what.starts_with("INI was not able to parse"))
        what = fmt::format("no option of this file's is called '{}'", what.substr(name + 1));
      return console.usage(file != nullptr && !file->empty() ? file->as<std::string>() + ": " + what : what);
    } catch (const CLI::ParseError& error) {
      return console.usage(error.what());
    }
    try {
      return run(console);
    } catch (const WrongUsage& wrong) {
      return console.usage(wrong.message);
    }
  });
}

}  // namespace chiasm
