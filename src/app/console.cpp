#include "app/console.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <sys/ioctl.h>
#include <unistd.h>

namespace chiasm {
namespace {

// The longest beginning of `text` that fits `columns`; characters of three bytes and more count as two columns.
std::string_view fitting(std::string_view text, std::size_t columns) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    used += bytes < 3 ? 1 : 2;
    if (used > columns) return text.substr(0, i);
    i += bytes;
  }
  return text;
}

bool is_styled() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) == 1 && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::string_view(term) != "dumb");
}

}  // namespace

Console::Console(std::string command)
    : command_(std::move(command)), progress_on_(::isatty(STDERR_FILENO) == 1), styled_(is_styled()) {}

void Console::print(std::string_view text) {
  clear_progress();
  while (!text.empty() && !reader_left_) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    reader_left_ = n < 0 && errno == EPIPE;
    if (reader_left_) return;
    if (n < 0) throw OutputLost{errno};
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

void Console::say(std::string_view message) {
  clear_progress();
  const std::string text = fmt::format("{}: {}\n", command_, message);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void Console::warn(std::string_view message) { say(fmt::format("warning: {}", message)); }

int Console::fault(const Error& error) {
  say(error.message);
  return kExitFault;
}

int Console::usage(std::string_view message) {
  say(fmt::format("{}\nTry '{} --help'.", message, command_));
  return kExitUsage;
}

void Console::progress(std::string_view text) {
  if (!progress_on_) return;
  progress_text_ = text;
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  const std::string line = fmt::format("\r\x1b[K{}", fitting(progress_text_, known ? size.ws_col - 1U : 79U));
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
  progress_shown_ = true;
}

void Console::clear_progress() {
  if (!progress_shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  progress_shown_ = false;
}

std::string Console::strong(std::string_view text) const {
  return styled_ ? fmt::format("\x1b[1m{}\x1b[0m", text) : std::string(text);
}

std::string counted(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string readable_bytes(double bytes) {
  constexpr const char* kUnits[] = {"bytes", "kB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  while (bytes >= 999.95 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} bytes", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

}  // namespace chiasm
