#include "base/secret.h"

#include <algorithm>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/check.h"
#include "base/digest.h"
#include "base/file.h"

namespace chiasm {
namespace {

constexpr std::uint64_t kMaxFile = 1 << 20;
constexpr std::size_t kShortest = 16;

}  // namespace

bool same_secret(std::string_view given, std::string_view kept) {
  // Digests are of one length, so nothing is learned of the kept one's.
  const Digest a = digest_of(std::as_bytes(std::span(given))), b = digest_of(std::as_bytes(std::span(kept)));
  return CRYPTO_memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

Result<Secrets> Secrets::load(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(file, kMaxFile));
  Secrets out;
  std::size_t line_number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++line_number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    if (line.empty() || line.front() == '#') continue;
    if (line.size() < kShortest)
      return fail(Code::kInvalidArgument, "{}: line {}: expected a key of at least {} characters, got {}",
                  file.string(), line_number, kShortest, line.size());
    if (!std::all_of(line.begin(), line.end(), [](char c) { return c > ' ' && c <= '~'; }))
      return fail(Code::kInvalidArgument, "{}: line {}: a key is of printable ASCII characters without spaces",
                  file.string(), line_number);
    out.keys_.emplace_back(line);
  }
  if (out.keys_.empty()) return fail(Code::kInvalidArgument, "{}: expected a key a line, got none", file.string());
  return out;
}

Secrets Secrets::of(std::vector<std::string> keys) {
  Secrets out;
  out.keys_ = std::move(keys);
  return out;
}

bool Secrets::contains(std::string_view given) const {
  bool found = false;
  for (const std::string& key : keys_) found |= same_secret(given, key);
  return found;
}

std::string random_hex(std::size_t digits) {
  std::vector<unsigned char> bytes((digits + 1) / 2);
  CHECK(RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1);
  std::string out;
  for (const unsigned char byte : bytes) out += fmt::format("{:02x}", byte);
  out.resize(digits);
  return out;
}

}  // namespace chiasm
