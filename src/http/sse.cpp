#include "http/sse.h"

namespace chiasm {
namespace {

// Every line of `text` gets `prefix`, so that a line break in it cannot begin a field or end the event.
std::string lines(std::string_view prefix, std::string_view text) {
  std::string out;
  out.reserve(prefix.size() + text.size() + 2);
  for (;;) {
    const std::size_t end = text.find_first_of("\r\n");
    out.append(prefix).append(text.substr(0, end)).append("\n");
    if (end == std::string_view::npos) return out.append("\n");
    text.remove_prefix(end + (text.substr(end, 2) == "\r\n" ? 2 : 1));
  }
}

}  // namespace

Headers sse_headers() {
  return {
      {"Content-Type", "text/event-stream; charset=utf-8"}, {"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
}

std::string sse_data(std::string_view one_line) { return lines("data: ", one_line); }

std::string sse_comment(std::string_view one_line) { return lines(": ", one_line); }

}  // namespace chiasm
