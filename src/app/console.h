// What a command says: results on stdout, messages and progress on stderr.
//
// Results are written at once and checked: when the reader has left (chiasm compare A B | head -1) the rest is not
// written, but the work and its exit code are what they would have been; a full disk is an error.
// Progress is one line, on a terminal only. Thread contract: the main thread.
#pragma once

#include <string>
#include <string_view>

#include <fmt/core.h>

#include "base/result.h"

namespace chiasm {

// Exit codes; the program's --help lists them.
inline constexpr int kExitSuccess = 0;
inline constexpr int kExitFault = 1;  // the input or the model is at fault
inline constexpr int kExitUsage = 2;  // the command line is
inline constexpr int kExitDrift = 3;  // compare: beyond the tolerance

// Thrown when stdout cannot be written; main turns it into an exit code.
struct OutputLost {
  int error = 0;  // errno
};

class Console {
 public:
  // `command` stands before every message: "chiasm ask".
  explicit Console(std::string command);
  ~Console() { clear_progress(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void print(std::string_view text);
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    print(fmt::format(format, std::forward<Args>(args)...) + "\n");
  }

  void warn(std::string_view message);
  // Says what is wrong and gives the exit code: return console.fault(error);
  int fault(const Error& error);
  int usage(std::string_view message);  // adds where help is

  // No progress from here on, for --json and --quiet.
  void be_quiet() { progress_on_ = false; }
  // Replaces the progress line.
  void progress(std::string_view text);
  const std::string& progress_text() const { return progress_text_; }
  void clear_progress();

  // Bold on a terminal, unless NO_COLOR says otherwise.
  std::string strong(std::string_view text) const;

 private:
  void say(std::string_view message);

  const std::string command_;
  bool progress_on_ = false, progress_shown_ = false, styled_ = false;
  bool reader_left_ = false;
  std::string progress_text_;
};

// "1 question", "2 questions".
std::string counted(std::size_t count, std::string_view noun);
// "19.8 MB", in powers of 1000 as disks and the hub count; exact below 1000.
std::string readable_bytes(double bytes);

}  // namespace chiasm
