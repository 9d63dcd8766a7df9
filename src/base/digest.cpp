#include "base/digest.h"

#include <bit>
#include <cstring>

#include <openssl/evp.h>
#include <xxhash.h>

#include "base/check.h"

namespace chiasm {
namespace {

std::array<std::byte, 8> little_endian(std::uint64_t value) {
  std::array<std::byte, 8> out;
  for (int i = 0; i < 8; ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
  return out;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::string Digest::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * bytes.size());
  for (std::uint8_t b : bytes) {
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

Result<Digest> Digest::from_hex(std::string_view hex) {
  Digest out;
  if (hex.size() != 2 * out.bytes.size())
    return fail(Code::kInvalidArgument, "expected a digest of 64 hex digits, got {} characters", hex.size());
  for (std::size_t i = 0; i < out.bytes.size(); ++i) {
    const int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) return fail(Code::kInvalidArgument, "expected a digest of lower-case hex digits");
    out.bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return out;
}

struct Hasher::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() { CHECK(context != nullptr && EVP_DigestInit_ex(context, EVP_blake2b512(), nullptr) == 1); }
  ~State() { EVP_MD_CTX_free(context); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

Hasher& Hasher::update(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
  return *this;
}

void Hasher::frame(char type, std::string_view name, std::uint64_t size) {
  const std::byte tag = static_cast<std::byte>(type);
  update({&tag, 1});
  update(little_endian(name.size()));
  update(std::as_bytes(std::span(name)));
  update(little_endian(size));
}

Hasher& Hasher::add(std::string_view name, std::string_view text) {
  frame('s', name, text.size());
  return update(std::as_bytes(std::span(text)));
}

Hasher& Hasher::add(std::string_view name, std::span<const std::byte> bytes) {
  frame('b', name, bytes.size());
  return update(bytes);
}

Hasher& Hasher::add(std::string_view name, const Digest& digest) {
  frame('d', name, digest.bytes.size());
  return update(std::as_bytes(std::span(digest.bytes)));
}

Hasher& Hasher::add(std::string_view name, std::int64_t number) {
  frame('i', name, 8);
  return update(little_endian(static_cast<std::uint64_t>(number)));
}

Hasher& Hasher::add(std::string_view name, double number) {
  frame('f', name, 8);
  return update(little_endian(std::bit_cast<std::uint64_t>(number)));
}

Digest Hasher::finish() {
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> full{};
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(state_->context, full.data(), &size) == 1 && size >= 32);
  Digest out;
  std::memcpy(out.bytes.data(), full.data(), out.bytes.size());
  return out;
}

Digest digest_of(std::span<const std::byte> bytes) { return Hasher().update(bytes).finish(); }

std::uint64_t checksum_of(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace chiasm
