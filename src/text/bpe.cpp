#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>
#include <tuple>

#include "base/check.h"

namespace chiasm {
namespace {

// Up to this many bytes the quadratic loop without a heap is the faster one.
constexpr std::size_t kShort = 48;

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const std::array<std::int32_t, 256>& byte_ids, std::size_t merges)
    : byte_ids_(byte_ids), slots_(std::bit_ceil(2 * merges + 2)) {}

std::size_t Bpe::slot_of(std::uint64_t pair) const {
  std::uint64_t hash = pair * 0x9E3779B97F4A7C15ULL;
  hash ^= hash >> 32;
  std::size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot].pair != kEmpty && slots_[slot].pair != pair) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void Bpe::add_merge(std::int32_t left, std::int32_t right, Merge merge) {
  CHECK(left >= 0 && right >= 0 && merge.result >= 0);
  const std::uint64_t pair = pair_key(left, right);
  slots_[slot_of(pair)] = {pair, merge};
}

Bpe::Merge Bpe::find(std::int32_t left, std::int32_t right) const {
  return slots_[slot_of(pair_key(left, right))].merge;
}

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.size() <= kShort) {
    encode_short(piece, out);
  } else {
    encode_long(piece, out);
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<std::int32_t>& out) const {
  std::array<std::int32_t, kShort> ids;
  std::array<Merge, kShort> merges;  // merges[i] is that of ids[i] and ids[i + 1]
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = find(ids[i], ids[i + 1]);
  while (count > 1) {
    const auto* end = merges.begin() + count - 1;
    const auto* best = std::min_element(static_cast<const Merge*>(merges.begin()), end,
                                        [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
    if (best->rank == Merge::kNoRank) break;
    const auto at = static_cast<std::size_t>(best - merges.begin());
    ids[at] = best->result;
    std::copy(ids.begin() + at + 2, ids.begin() + count, ids.begin() + at + 1);
    std::copy(merges.begin() + at + 1, merges.begin() + count - 1, merges.begin() + at);
    --count;
    if (at + 1 < count) merges[at] = find(ids[at], ids[at + 1]);
    if (at > 0) merges[at - 1] = find(ids[at - 1], ids[at]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + count);
}

void Bpe::encode_long(std::string_view piece, std::vector<std::int32_t>& out) const {
  constexpr std::size_t kNone = ~std::size_t{0};
  struct Symbol {  // a doubly linked list over the bytes of the piece
    std::int32_t id;
    std::size_t before;
    std::size_t after;
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t left;  // the ids it was made for: another merge may have taken one of them since
    std::int32_t right;
    std::size_t at;
    bool operator>(const Candidate& other) const { return std::tie(rank, at) > std::tie(other.rank, other.at); }
  };
  std::vector<Symbol> symbols(piece.size());
  for (std::size_t i = 0; i < piece.size(); ++i)
    symbols[i] = {byte_ids_[static_cast<unsigned char>(piece[i])], i == 0 ? kNone : i - 1,
                  i + 1 == piece.size() ? kNone : i + 1};

  std::vector<Candidate> storage;
  storage.reserve(piece.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{}, std::move(storage));
  const auto offer = [&](std::size_t at) {
    if (at == kNone || symbols[at].after == kNone) return;
    const std::int32_t left = symbols[at].id;
    const std::int32_t right = symbols[symbols[at].after].id;
    if (const Merge merge = find(left, right); merge.rank != Merge::kNoRank) queue.push({merge.rank, left, right, at});
  };
  for (std::size_t i = 0; i < piece.size(); ++i) offer(i);

  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.at];
    if (left.id != best.left || left.after == kNone || symbols[left.after].id != best.right) continue;
    Symbol& right = symbols[left.after];
    left.id = find(best.left, best.right).result;
    left.after = right.after;
    if (right.after != kNone) symbols[right.after].before = best.at;
    right.id = -1;  // taken: no candidate is made for id -1
    offer(best.at);
    offer(left.before);
  }
  for (std::size_t i = 0; i != kNone; i = symbols[i].after) out.push_back(symbols[i].id);
}

}  // namespace chiasm
