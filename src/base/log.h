// Log lines of a server: time, level, what happened, in fields. One line an event, on standard error.
//
// Never given to it: pixels, prompts, answers, keys. Whoever logs sees to that. Thread contract: any thread.
#pragma once

#include <cmath>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <fmt/core.h>

#include "base/result.h"

namespace chiasm {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError, kOff };
enum class LogFormat : std::uint8_t { kText, kJson };

class Log {
 public:
  // A text, a whole number, a number of milliseconds or the like (one decimal), or a yes or no.
  struct Field {
    template <class Value>
    Field(std::string_view key, Value&& value) : name(key) {  // NOLINT: any of the four
      using Plain = std::remove_cvref_t<Value>;
      if constexpr (std::is_same_v<Plain, bool>) {
        text = value ? "true" : "false";
      } else if constexpr (std::is_floating_point_v<Plain>) {
        text = std::isfinite(value) ? fmt::format("{:.1f}", value) : "0";
      } else if constexpr (std::is_integral_v<Plain>) {
        text = std::to_string(value);
      } else {
        text = std::forward<Value>(value);
        is_text = true;
      }
    }
    std::string_view name;
    std::string text;
    bool is_text = false;
  };

  // `sink` takes finished lines instead of standard error; may be null.
  explicit Log(LogLevel level, LogFormat format = LogFormat::kText,
               std::function<void(std::string_view line)> sink = nullptr);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void write(LogLevel level, std::string_view what, std::initializer_list<Field> fields = {});
  void debug(std::string_view what, std::initializer_list<Field> fields = {}) { write(LogLevel::kDebug, what, fields); }
  void info(std::string_view what, std::initializer_list<Field> fields = {}) { write(LogLevel::kInfo, what, fields); }
  void warn(std::string_view what, std::initializer_list<Field> fields = {}) { write(LogLevel::kWarn, what, fields); }
  void error(std::string_view what, std::initializer_list<Field> fields = {}) { write(LogLevel::kError, what, fields); }
  bool enabled(LogLevel level) const { return level >= level_ && level_ != LogLevel::kOff; }

 private:
  struct Sink;
  const LogLevel level_;
  const LogFormat format_;
  std::unique_ptr<Sink> sink_;
};

}  // namespace chiasm
