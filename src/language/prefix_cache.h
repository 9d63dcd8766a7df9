// The KV blocks of the pool: which are in use, and what those hold that nobody uses now but somebody may ask for again.
//
// Full blocks stand in a tree, one tree a salt, under the tokens they hold (KvSlot, compared and never hashed): the
// path from the root to a block is all that its contents depend on. A sequence is a Chain: whole blocks that it shares
// with whoever has the same beginning, then blocks of its own. What a released chain leaves behind stays until its
// block is needed: least recently used first, ends of paths before what they stand on. The keys and values themselves
// live in the Ops' KvPool; this only says which block to copy where, and which to clear.
//
// A block counts as proven once logits behind it were finite. The weight of a key that a row may not see is zero, and
// zero times infinity is no number: so a block that is not proven is cleared before others write into it.
// Thread contract: one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "language/kv_slot.h"

namespace chiasm {

// Blocks that `tokens` tokens take.
inline std::int64_t kv_blocks_for(std::int64_t tokens) { return (tokens + kKvBlock - 1) / kKvBlock; }

class PrefixCache {
 public:
  // What is done to the pool.
  struct PoolActions {
    std::function<void(std::int32_t from, std::int32_t to)> copy;
    // Slots first_slot .. kKvBlock - 1 of a block become finite.
    std::function<void(std::int32_t block, std::int64_t first_slot)> clear;
  };

 private:
  struct Node;

 public:
  // The blocks of one sequence. `slots` is what the sequence holds; it outlives the chain's time between start() and
  // release(), may grow, and is never changed otherwise. A started chain stays where it is in memory.
  class Chain {
   public:
    Chain() = default;
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    std::span<const std::int32_t> block_table() const { return table_; }
    std::int64_t blocks() const { return static_cast<std::int64_t>(table_.size()); }

   private:
    friend class PrefixCache;
    Node* root_ = nullptr;
    const std::vector<KvSlot>* slots_ = nullptr;
    std::vector<Node*> nodes_;         // whole blocks in the tree
    std::vector<std::int32_t> table_;  // the blocks of nodes_, then its own
    std::int64_t computed_ = 0;        // tokens in the blocks
    std::int64_t written_ = 0;         // tokens that may have been written, failed steps included
    std::int64_t proven_ = 0;          // tokens of its own blocks that are known to be finite
    bool apart_ = false;               // adds nothing to the tree any more
  };

  // What is there of a beginning.
  struct Match {
    std::int64_t tokens = 0;   // in whole blocks and in the one that is copied
    std::int64_t blocks = 0;   // whole ones
    std::int64_t revived = 0;  // of these, how many nobody holds now: available() falls by them

   private:
    friend class PrefixCache;
    std::vector<Node*> nodes_;
    Node* partial_node_ = nullptr;          // the block in which the two part ways: one of the tree,
    const Chain* partial_chain_ = nullptr;  // or of a sequence that is still filling it
    std::int64_t partial_ = 0;              // tokens of it
  };

  // Without `share` nothing is kept and nothing found.
  PrefixCache(std::int64_t blocks, bool share, PoolActions actions);
  ~PrefixCache();

  std::int64_t blocks() const { return static_cast<std::int64_t>(dirty_.size()); }
  std::int64_t cached() const { return cached_; }  // held by nobody, and remembered
  std::int64_t available() const { return static_cast<std::int64_t>(free_.size()) + cached_; }

  // The longest beginning of `slots` that is in the pool.
  Match match(std::string_view salt, std::span<const KvSlot> slots) const;

  // A chain that goes on behind `match`, which must be of this moment. Returns the tokens that need not be computed:
  // match.tokens, or whole blocks only where there is no block left to copy into.
  std::int64_t start(Chain& chain, std::string_view salt, const std::vector<KvSlot>& slots, const Match& match);

  // Blocks for `tokens` tokens; as many more as it has not must be available().
  void grow(Chain& chain, std::int64_t tokens);
  // The first `computed` tokens are in the blocks. Whole blocks become findable; one that is there already is used
  // instead of the chain's own, so that block_table() may change.
  void advance(Chain& chain, std::int64_t computed);
  // Logits behind everything computed so far were finite.
  void prove(Chain& chain);

  // Gives the blocks back. What they hold stays findable.
  void release(Chain& chain);
  // The same, and nothing of it is found again but what others have proven.
  void discard(Chain& chain);

  // Forgets all, whatever state an exception left it in. Chains that were started must not be used again.
  void clear();

  // Blocks of `chain` that are not in `seen`, which they are put into: what giving it back gains while those in `seen`
  // stay.
  static std::int64_t count_new(const Chain& chain, std::vector<bool>& seen);

 private:
  // By content; shorter keys before longer ones that begin with them.
  struct Order {
    using is_transparent = void;
    bool operator()(std::span<const KvSlot> a, std::span<const KvSlot> b) const;
  };
  using Children = std::map<std::vector<KvSlot>, std::unique_ptr<Node>, Order>;
  struct Node {
    Node* parent = nullptr;  // none of a root
    Children children;
    Children::iterator place;  // in the parent's children
    std::int32_t block = -1;
    std::int64_t holders = 0;
    std::uint64_t last_used = 0, number = 0;
    bool proven = false;
    bool lost = false;                  // out of the tree; its holders may use it to their end
    std::vector<const Chain*> open;     // chains whose own blocks begin here
    const std::string* salt = nullptr;  // of a root
  };
  struct Older {
    bool operator()(const Node* a, const Node* b) const {
      return std::pair(a->last_used, a->number) < std::pair(b->last_used, b->number);
    }
  };

  void free_all();
  std::int32_t take();
  void free_block(std::int32_t block, bool dirty);
  void evict(Node* node);
  void hold(Node* node);
  void let_go(Node* node);
  void drop_root_if_idle(Node* root);
  Node* insert(Node* parent, std::span<const KvSlot> key, std::int32_t block);
  void remove_shorter(Node* parent, Children::iterator newcomer);
  void forget(Node* node);
  void link_full_blocks(Chain& chain);
  void keep_tail(Chain& chain);
  void finish(Chain& chain);
  static Node* end_of(const Chain& chain) { return chain.nodes_.empty() ? chain.root_ : chain.nodes_.back(); }
  static std::span<const KvSlot> tail_of(const Chain& chain);
  static void close(Chain& chain);

  const bool share_;
  const PoolActions actions_;
  std::vector<std::int32_t> free_;
  std::vector<bool> dirty_;  // of a free block: to be cleared before use
  std::map<std::string, std::unique_ptr<Node>, std::less<>> roots_;
  std::set<Node*, Older> leaves_;  // held by nobody, nothing stands on them
  std::unordered_map<Node*, std::unique_ptr<Node>> lost_;
  std::int64_t cached_ = 0;
  std::uint64_t clock_ = 0, numbers_ = 0;
};

}  // namespace chiasm
