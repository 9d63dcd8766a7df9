#include "roles/page.h"

#include <array>
#include <string>
#include <utility>

#include "base/digest.h"

namespace chiasm {
namespace {

std::string_view content_type(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kTypes{{
      {".html", "text/html; charset=utf-8"},
      {".css", "text/css; charset=utf-8"},
      {".js", "text/javascript; charset=utf-8"},
      {".svg", "image/svg+xml"},
      {".png", "image/png"},
      {".jpg", "image/jpeg"},
  }};
  for (const auto& [ending, type] : kTypes)
    if (name.ends_with(ending)) return type;
  return "application/octet-stream";
}

Handler show(const PageFile& file) {
  const std::string tag = "\"" + digest_of(std::as_bytes(std::span(file.bytes))).hex().substr(0, 32) + "\"";
  return [file, tag](Exchange& exchange) {
    HttpResponse out;
    out.headers = {{"Content-Type", std::string(content_type(file.name))},
                   {"ETag", tag},
                   {"Cache-Control", "no-cache"},
                   {"Content-Security-Policy",
                    "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; "
                    "form-action 'none'"},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Referrer-Policy", "no-referrer"}};
    if (has_current(exchange.request(), tag)) {
      out.status = 304;
    } else {
      out.body = file.bytes;
    }
    exchange.respond(std::move(out));
  };
}

}  // namespace

std::vector<Route> page_routes() {
  std::vector<Route> out;
  for (const PageFile& file : page_files()) {
    const std::string pattern = file.name == "index.html" ? "/" : "/web/" + std::string(file.name);
    out.push_back({"GET", pattern, show(file), Route::Lane::kControl, true, 0});
  }
  return out;
}

}  // namespace chiasm
