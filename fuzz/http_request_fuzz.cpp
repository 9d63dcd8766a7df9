// Any bytes are either refused or requests with one reading: the same whether they come at once or in pieces.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "expect.h"
#include "http/request_parser.h"
#include "http/response_reader.h"

namespace {

using namespace chiasm;
using fuzz::expect;

constexpr std::uint32_t kMaxHeader = 4096;
constexpr int kMaxHeaders = 32;
constexpr std::uint64_t kMaxBody = 65536;

struct Reading {
  bool head = false;
  int refused = 0;
  BodyDecoder::Verdict verdict = BodyDecoder::Verdict::kMore;
  std::string method, path, body;
  std::size_t used = 0;
};

void check(const RequestHead& head, std::string_view bytes) {
  const HttpRequest& request = head.request;
  expect(head.bytes <= bytes.size() && bytes.substr(0, head.bytes).ends_with("\r\n\r\n"));
  expect(!request.method.empty() && request.path.starts_with('/'));
  expect(!(head.chunked && head.content_length > 0));
  expect(static_cast<int>(request.headers.all().size()) <= kMaxHeaders);
  std::string path;
  for (const std::string& segment : head.segments) {
    // A slash that was encoded may be in a name; a step up may not, in either way.
    const std::string framed = "/" + segment + "/";
    expect(framed.find("/./") == std::string::npos && framed.find("/../") == std::string::npos);
    expect(std::none_of(segment.begin(), segment.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }));
    path += "/" + segment;
  }
  expect(path == request.path);
  for (const auto& [name, value] : request.headers.all()) {
    expect(!name.empty());
    expect(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
  }
  for (const auto& [name, value] : request.query)
    expect(name.find('\0') == std::string::npos && value.find('\0') == std::string::npos);
}

// One request, as the session reads it: all that has come so far is looked at whenever `step` more bytes are there.
Reading read(std::string_view bytes, std::size_t step) {
  Reading out;
  RequestParser parser(kMaxHeader, kMaxHeaders);
  for (std::size_t size = std::min(step, bytes.size());; size = std::min(size + step, bytes.size())) {
    auto head = parser.head(bytes.substr(0, size));
    if (!head) {
      out.refused = head.error().status;
      expect(out.refused >= 400 && out.refused < 500 && !head.error().message.empty());
      return out;
    }
    if (!*head) {
      if (size == bytes.size()) return out;
      continue;
    }
    check(**head, bytes);
    out.head = true;
    out.method = (*head)->request.method;
    out.path = (*head)->request.path;
    out.used = (*head)->bytes;
    BodyDecoder decoder = (*head)->body_decoder(kMaxBody);
    std::string_view rest = bytes.substr(out.used);
    do {
      std::string_view piece = rest.substr(0, step);
      const std::size_t given = piece.size();
      out.verdict = decoder.feed(piece, out.body);
      rest.remove_prefix(given - piece.size());
    } while (out.verdict == BodyDecoder::Verdict::kMore && !rest.empty());
    expect(out.body.size() <= kMaxBody);
    if (out.verdict == BodyDecoder::Verdict::kDone) out.used = bytes.size() - rest.size();
    return out;
  }
}

void read_response(std::string_view bytes, std::size_t step) {
  ResponseReader reader(step % 2 == 0, kMaxBody);
  while (!bytes.empty() && !reader.done()) {
    if (!reader.feed(bytes.substr(0, step))) return;
    bytes.remove_prefix(std::min(step, bytes.size()));
  }
  if (!reader.end()) return;
  expect(reader.done());
  const HttpResponse response = reader.take();
  expect(response.status >= 200 && response.status <= 999 && response.body.size() <= kMaxBody);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Reading whole = read(bytes, std::max<std::size_t>(size, 1));
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}}) {
    const Reading split = read(bytes, step);
    expect(split.head == whole.head && split.refused == whole.refused);
    expect(split.method == whole.method && split.path == whole.path);
    expect(split.verdict == whole.verdict);
    if (whole.verdict == BodyDecoder::Verdict::kDone) expect(split.body == whole.body && split.used == whole.used);
  }
  read_response(bytes, 1 << 20);
  read_response(bytes, 5);
  return 0;
}
