#include "base/log.h"

#include <mutex>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace chiasm {
namespace {

spdlog::level::level_enum library_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarn: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: return spdlog::level::off;
  }
  return spdlog::level::off;
}

// Text from outside must not make a second line, or look like another field.
std::string as_json(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class CallingSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit CallingSink(std::function<void(std::string_view)> call) : call_(std::move(call)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    call_({message.payload.data(), message.payload.size()});
  }
  void flush_() override {}

  const std::function<void(std::string_view)> call_;
};

bool is_plain(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text)
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == '\x7f') return false;
  return true;
}

}  // namespace

struct Log::Sink {
  std::shared_ptr<spdlog::logger> logger;
};

Log::Log(LogLevel level, LogFormat format, std::function<void(std::string_view)> sink)
    : level_(level), format_(format), sink_(std::make_unique<Sink>()) {
  spdlog::sink_ptr out;
  if (sink) {
    out = std::make_shared<CallingSink>(std::move(sink));
  } else {
    out = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  sink_->logger = std::make_shared<spdlog::logger>("chiasm", std::move(out));
  sink_->logger->set_level(library_level(level));
  sink_->logger->set_pattern(format == LogFormat::kJson ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%eZ\",\"level\":\"%l\",%v}"
                                                        : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                             spdlog::pattern_time_type::utc);
}

Log::~Log() = default;

void Log::write(LogLevel level, std::string_view what, std::initializer_list<Field> fields) {
  if (!enabled(level)) return;
  std::string line;
  if (format_ == LogFormat::kJson) {
    line = "\"event\":" + as_json(what);
    for (const Field& field : fields)
      line += "," + as_json(field.name) + ":" + (field.is_text ? as_json(field.text) : field.text);
  } else {
    const std::string text = as_json(what);
    line = text.substr(1, text.size() - 2);
    for (const Field& field : fields) {
      line += ' ';
      line += field.name;
      line += '=';
      line += is_plain(field.text) ? field.text : as_json(field.text);
    }
  }
  sink_->logger->log(library_level(level), line);
}

}  // namespace chiasm
