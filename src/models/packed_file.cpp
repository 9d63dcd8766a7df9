#include "models/packed_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/file.h"

namespace chiasm {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are stored as they lie");

constexpr std::array<char, 8> kMagic{'c', 'h', 'p', 'a', 'n', 'e', 'l', '1'};
constexpr std::uint64_t kHeader = 64, kEntry = 80, kAlign = 4096, kCovered = 16;  // the checksum covers what is behind
constexpr std::uint64_t kMostEntries = 1 << 16;
constexpr std::int64_t kMostFeatures = std::int64_t{1} << 31;

std::uint64_t aligned(std::uint64_t at) { return (at + kAlign - 1) / kAlign * kAlign; }

std::uint64_t number_at(std::span<const std::byte> bytes, std::uint64_t at) {
  std::uint64_t out = 0;
  std::memcpy(&out, bytes.data() + at, sizeof(out));
  return out;
}
void put(std::span<std::byte> bytes, std::uint64_t at, std::uint64_t number) {
  std::memcpy(bytes.data() + at, &number, sizeof(number));
}

Digest digest_at(std::span<const std::byte> bytes, std::uint64_t at) {
  Digest out;
  std::memcpy(out.bytes.data(), bytes.data() + at, out.bytes.size());
  return out;
}

Digest name_digest(std::string_view name) { return digest_of(std::as_bytes(std::span(name))); }

}  // namespace

Result<PackedFile> PackedFile::parse(std::span<const std::byte> bytes, const Digest& key) {
  const auto damaged = [](std::string_view what) { return fail(Code::kDataLoss, "damaged: {}", what); };
  if (bytes.size() < kHeader) return damaged("shorter than its header");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) return damaged("it begins as no such file does");
  const std::uint64_t table = number_at(bytes, 24);
  if (number_at(bytes, 16) != bytes.size()) return damaged("another size than it says");
  if (table % kEntry != 0 || table / kEntry > kMostEntries || table > bytes.size() - kHeader)
    return damaged("the size of its table");
  if (checksum_of(bytes.subspan(kCovered, kHeader - kCovered + table)) != number_at(bytes, 8))
    return damaged("the checksum of its table");
  if (digest_at(bytes, 32) != key) return fail(Code::kFailedPrecondition, "made of other weights");
  PackedFile out;
  for (std::uint64_t at = kHeader; at < kHeader + table; at += kEntry) {
    PackedEntry entry{.name = digest_at(bytes, at)};
    const std::uint64_t precision = number_at(bytes, at + 32), outputs = number_at(bytes, at + 40);
    const std::uint64_t inputs = number_at(bytes, at + 48), place = number_at(bytes, at + 56);
    const std::uint64_t size = number_at(bytes, at + 64);
    if (precision < 1 || precision > static_cast<std::uint64_t>(Precision::kInt8Fine)) return damaged("a precision");
    if (outputs < 1 || outputs > kMostFeatures || inputs < 1 || inputs > kMostFeatures) return damaged("a shape");
    if (place % kAlign != 0 || place < kHeader + table || place > bytes.size() || size > bytes.size() - place)
      return damaged("a matrix lies outside of it");
    entry.precision = static_cast<Precision>(precision);
    entry.out_features = static_cast<std::int64_t>(outputs);
    entry.in_features = static_cast<std::int64_t>(inputs);
    entry.bytes = bytes.subspan(place, size);
    entry.checksum = number_at(bytes, at + 72);
    out.entries_.push_back(entry);
  }
  std::ranges::sort(out.entries_, {}, &PackedEntry::name);
  if (std::ranges::adjacent_find(out.entries_, {}, &PackedEntry::name) != out.entries_.end())
    return damaged("a matrix is there twice");
  return out;
}

Result<PackedFile> PackedFile::open(const std::filesystem::path& path, const Digest& key) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  auto mapped = std::make_shared<const MappedFile>(std::move(file));
  auto out = parse(mapped->bytes(), key);
  if (!out) return fail_in(path.string(), out.error());
  out->mapped_ = std::move(mapped);
  return out;
}

Status PackedFile::verify(ThreadPool& threads) const {
  std::vector<std::uint8_t> sound(entries_.size());
  threads.parallel_for(static_cast<std::int64_t>(entries_.size()), [&](std::int64_t i, int) {
    const PackedEntry& entry = entries_[static_cast<std::size_t>(i)];
    sound[static_cast<std::size_t>(i)] = checksum_of(entry.bytes) == entry.checksum ? 1 : 0;
  });
  if (std::ranges::find(sound, 0) != sound.end()) return fail(Code::kDataLoss, "damaged: the checksum of a matrix");
  return {};
}

const PackedEntry* PackedFile::find(std::string_view name) const {
  const Digest digest = name_digest(name);
  const auto found = std::ranges::lower_bound(entries_, digest, {}, &PackedEntry::name);
  return found == entries_.end() || found->name != digest ? nullptr : &*found;
}

std::uint64_t packed_file_size(std::span<const NamedMatrix> matrices) {
  std::uint64_t at = kHeader + kEntry * matrices.size();
  for (const NamedMatrix& matrix : matrices) at = aligned(at) + matrix.bytes.size();
  return at;
}

Status write_packed_file(const std::filesystem::path& path, const Digest& key, std::span<const NamedMatrix> matrices,
                         ThreadPool& threads) {
  CHECK(matrices.size() <= kMostEntries);
  const std::uint64_t table = kEntry * matrices.size();
  std::vector<std::uint64_t> checksums(matrices.size());
  threads.parallel_for(static_cast<std::int64_t>(matrices.size()), [&](std::int64_t i, int) {
    checksums[static_cast<std::size_t>(i)] = checksum_of(matrices[static_cast<std::size_t>(i)].bytes);
  });
  static constexpr std::array<std::byte, kAlign> kNothing{};
  std::vector<std::byte> head(kHeader + table);
  std::vector<std::span<const std::byte>> pieces{head};
  std::uint64_t at = head.size();
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    const NamedMatrix& matrix = matrices[i];
    if (aligned(at) != at) pieces.push_back(std::span(kNothing).first(aligned(at) - at));
    at = aligned(at);
    const std::uint64_t entry = kHeader + kEntry * i;
    const Digest name = name_digest(matrix.name);
    std::memcpy(head.data() + entry, name.bytes.data(), name.bytes.size());
    put(head, entry + 32, static_cast<std::uint64_t>(matrix.precision));
    put(head, entry + 40, static_cast<std::uint64_t>(matrix.out_features));
    put(head, entry + 48, static_cast<std::uint64_t>(matrix.in_features));
    put(head, entry + 56, at);
    put(head, entry + 64, matrix.bytes.size());
    put(head, entry + 72, checksums[i]);
    pieces.push_back(matrix.bytes);
    at += matrix.bytes.size();
  }
  std::memcpy(head.data(), kMagic.data(), kMagic.size());
  put(head, 16, at);
  put(head, 24, table);
  std::memcpy(head.data() + 32, key.bytes.data(), key.bytes.size());
  put(head, 8, checksum_of(std::span<const std::byte>(head).subspan(kCovered)));
  return publish_pieces(path, pieces, nullptr, Disk::kNotWaited);  // its checksums are read at every start
}

}  // namespace chiasm
