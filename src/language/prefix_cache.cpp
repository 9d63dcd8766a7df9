#include "language/prefix_cache.h"

#include <algorithm>

#include "base/check.h"

namespace chiasm {
namespace {

std::int64_t common(std::span<const KvSlot> a, std::span<const KvSlot> b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

}  // namespace

bool PrefixCache::Order::operator()(std::span<const KvSlot> a, std::span<const KvSlot> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

PrefixCache::PrefixCache(std::int64_t blocks, bool share, PoolActions actions)
    : share_(share), actions_(std::move(actions)) {
  dirty_.assign(static_cast<std::size_t>(blocks), false);
  free_all();
}

void PrefixCache::free_all() {
  free_.clear();
  for (std::int64_t block = blocks(); block-- > 0;) free_.push_back(static_cast<std::int32_t>(block));
}

void PrefixCache::clear() {
  roots_.clear();
  leaves_.clear();
  lost_.clear();
  cached_ = 0;
  dirty_.assign(dirty_.size(), true);
  free_all();
}

PrefixCache::~PrefixCache() = default;

// --- finding

PrefixCache::Match PrefixCache::match(std::string_view salt, std::span<const KvSlot> slots) const {
  Match out;
  const auto root = roots_.find(salt);
  if (root == roots_.end()) return out;
  const Node* node = root->second.get();
  while (!slots.empty()) {
    const std::span<const KvSlot> block = slots.first(std::min<std::size_t>(slots.size(), kKvBlock));
    const auto next = node->children.lower_bound(block);
    if (block.size() == kKvBlock && next != node->children.end() && common(next->first, block) == kKvBlock) {
      node = next->second.get();
      out.nodes_.push_back(next->second.get());
      out.revived += node->holders == 0 ? 1 : 0;
      slots = slots.subspan(block.size());
      continue;
    }
    // Whoever has most in common with `block` stands beside its place in the order, or is being filled.
    const auto consider = [&](Children::const_iterator place) {
      const std::int64_t tokens = common(place->first, block);
      if (tokens > out.partial_) out.partial_ = tokens, out.partial_node_ = place->second.get();
    };
    if (next != node->children.end()) consider(next);
    if (next != node->children.begin()) consider(std::prev(next));
    for (const Chain* chain : node->open) {
      const std::int64_t tokens = common(tail_of(*chain), block);
      if (tokens > out.partial_) out.partial_ = tokens, out.partial_chain_ = chain, out.partial_node_ = nullptr;
    }
    break;
  }
  out.blocks = static_cast<std::int64_t>(out.nodes_.size());
  out.tokens = out.blocks * kKvBlock + out.partial_;
  return out;
}

std::span<const KvSlot> PrefixCache::tail_of(const Chain& chain) {
  const auto begin = static_cast<std::int64_t>(chain.nodes_.size()) * kKvBlock;
  return std::span(*chain.slots_)
      .subspan(static_cast<std::size_t>(begin),
               static_cast<std::size_t>(std::clamp<std::int64_t>(chain.computed_ - begin, 0, kKvBlock)));
}

// --- the life of a chain

std::int64_t PrefixCache::start(Chain& chain, std::string_view salt, const std::vector<KvSlot>& slots,
                                const Match& match) {
  CHECK(chain.root_ == nullptr && chain.table_.empty());
  chain.slots_ = &slots;
  chain.apart_ = !share_;
  auto root = roots_.find(salt);
  if (root == roots_.end()) {
    root = roots_.emplace(std::string(salt), std::make_unique<Node>()).first;
    root->second->salt = &root->first;
  }
  chain.root_ = root->second.get();
  ++chain.root_->holders;
  for (Node* node : match.nodes_) {
    hold(node);
    chain.nodes_.push_back(node);
    chain.table_.push_back(node->block);
  }
  std::int64_t tokens = match.blocks * kKvBlock;
  bool proven = true;
  if (match.partial_ > 0) {
    // Held, so that it is not the block that is evicted to be copied into.
    if (match.partial_node_ != nullptr) hold(match.partial_node_);
    if (available() > 0) {
      const Chain* other = match.partial_chain_;
      const std::int32_t from = other != nullptr ? other->table_[other->nodes_.size()] : match.partial_node_->block;
      proven = other != nullptr ? other->proven_ >= other->written_ : match.partial_node_->proven;
      chain.table_.push_back(take());
      actions_.copy(from, chain.table_.back());
      if (!proven) actions_.clear(chain.table_.back(), match.partial_);
      tokens += match.partial_;
    }
    if (match.partial_node_ != nullptr) let_go(match.partial_node_);
  }
  chain.computed_ = chain.written_ = tokens;
  chain.proven_ = proven ? tokens : 0;
  if (share_) end_of(chain)->open.push_back(&chain);
  return tokens;
}

void PrefixCache::grow(Chain& chain, std::int64_t tokens) {
  while (chain.blocks() * kKvBlock < tokens) chain.table_.push_back(take());
  chain.written_ = std::max(chain.written_, tokens);
}

void PrefixCache::advance(Chain& chain, std::int64_t computed) {
  CHECK(computed >= chain.computed_ && computed <= chain.blocks() * kKvBlock);
  chain.computed_ = computed;
  if (!chain.apart_ && computed / kKvBlock > static_cast<std::int64_t>(chain.nodes_.size())) link_full_blocks(chain);
}

void PrefixCache::link_full_blocks(Chain& chain) {
  close(chain);
  while (chain.computed_ / kKvBlock > static_cast<std::int64_t>(chain.nodes_.size())) {
    Node* parent = end_of(chain);
    if (parent->lost) {  // what stands on it would never be found
      chain.apart_ = true;
      return;
    }
    const std::size_t index = chain.nodes_.size();
    const std::span<const KvSlot> key = tail_of(chain);
    if (const auto found = parent->children.find(key); found != parent->children.end()) {
      // Another sequence computed the same meanwhile, with the same bits (the row contract).
      hold(found->second.get());
      free_block(chain.table_[index], true);
      chain.table_[index] = found->second->block;
      chain.nodes_.push_back(found->second.get());
    } else {
      Node* node = insert(parent, key, chain.table_[index]);
      node->holders = 1;
      chain.nodes_.push_back(node);
    }
  }
  end_of(chain)->open.push_back(&chain);
}

void PrefixCache::prove(Chain& chain) {
  chain.proven_ = chain.computed_;
  for (std::size_t i = chain.nodes_.size(); i-- > 0 && !chain.nodes_[i]->proven;) chain.nodes_[i]->proven = true;
}

void PrefixCache::release(Chain& chain) {
  if (chain.root_ == nullptr) return;
  keep_tail(chain);
  finish(chain);
}

// The block that is not full stays too: another question on a picture begins inside it more often than not.
void PrefixCache::keep_tail(Chain& chain) {
  Node* parent = end_of(chain);
  const std::span<const KvSlot> key = tail_of(chain);
  const std::size_t index = chain.nodes_.size();
  if (chain.apart_ || parent->lost || key.empty() || key.size() == kKvBlock || chain.proven_ < chain.written_) return;
  const auto longer = parent->children.lower_bound(key);
  if (longer != parent->children.end() && common(longer->first, key) == static_cast<std::int64_t>(key.size())) return;
  Node* node = insert(parent, key, chain.table_[index]);
  node->proven = true;
  node->last_used = clock_ + 1;
  ++cached_;
  leaves_.insert(node);
  chain.table_[index] = -1;  // the tree's now
}

void PrefixCache::discard(Chain& chain) {
  if (chain.root_ == nullptr) return;
  const auto doubtful =
      std::find_if(chain.nodes_.begin(), chain.nodes_.end(), [](const Node* node) { return !node->proven; });
  if (doubtful != chain.nodes_.end() && !(*doubtful)->lost) forget(*doubtful);
  chain.proven_ = 0;
  finish(chain);
}

void PrefixCache::finish(Chain& chain) {
  close(chain);
  const bool dirty = chain.proven_ < chain.written_;
  for (std::size_t i = chain.nodes_.size(); i < chain.table_.size(); ++i)
    if (chain.table_[i] >= 0) free_block(chain.table_[i], dirty);
  ++clock_;
  for (std::size_t i = chain.nodes_.size(); i-- > 0;) {
    chain.nodes_[i]->last_used = chain.nodes_[i]->holders == 1 ? clock_ : chain.nodes_[i]->last_used;
    let_go(chain.nodes_[i]);
  }
  Node* root = chain.root_;
  --root->holders;
  chain.root_ = nullptr;
  chain.slots_ = nullptr;
  chain.nodes_.clear();
  chain.table_.clear();
  chain.computed_ = chain.written_ = chain.proven_ = 0;
  drop_root_if_idle(root);
}

void PrefixCache::close(Chain& chain) { std::erase(end_of(chain)->open, &chain); }

std::int64_t PrefixCache::count_new(const Chain& chain, std::vector<bool>& seen) {
  std::int64_t out = 0;
  for (const std::int32_t block : chain.table_) {
    if (!seen[static_cast<std::size_t>(block)]) ++out;
    seen[static_cast<std::size_t>(block)] = true;
  }
  return out;
}

// --- blocks and nodes

std::int32_t PrefixCache::take() {
  if (free_.empty()) {
    CHECK(!leaves_.empty());
    evict(*leaves_.begin());
  }
  const std::int32_t block = free_.back();
  free_.pop_back();
  if (dirty_[static_cast<std::size_t>(block)]) actions_.clear(block, 0);
  dirty_[static_cast<std::size_t>(block)] = false;
  return block;
}

void PrefixCache::free_block(std::int32_t block, bool dirty) {
  if (dirty) dirty_[static_cast<std::size_t>(block)] = true;
  free_.push_back(block);
}

void PrefixCache::hold(Node* node) {
  if (node->holders++ > 0) return;
  --cached_;
  leaves_.erase(node);
}

void PrefixCache::let_go(Node* node) {
  CHECK(node->holders > 0);
  if (--node->holders > 0) return;
  if (node->lost) {
    free_block(node->block, !node->proven);
    lost_.erase(node);
    return;
  }
  ++cached_;
  if (node->children.empty()) leaves_.insert(node);
}

// A leaf that nobody holds.
void PrefixCache::evict(Node* node) {
  leaves_.erase(node);
  --cached_;
  free_block(node->block, !node->proven);
  Node* parent = node->parent;
  parent->children.erase(node->place);
  if (parent->parent == nullptr) {
    drop_root_if_idle(parent);
  } else if (parent->holders == 0 && parent->children.empty()) {
    leaves_.insert(parent);
  }
}

void PrefixCache::drop_root_if_idle(Node* root) {
  if (root->holders == 0 && root->children.empty()) roots_.erase(roots_.find(*root->salt));
}

PrefixCache::Node* PrefixCache::insert(Node* parent, std::span<const KvSlot> key, std::int32_t block) {
  auto node = std::make_unique<Node>();
  node->parent = parent;
  node->block = block;
  node->number = ++numbers_;
  const auto place = parent->children.emplace(std::vector(key.begin(), key.end()), std::move(node)).first;
  place->second->place = place;
  remove_shorter(parent, place);
  return place->second.get();
}

// A block that holds less than the newcomer beside it finds nothing any more.
void PrefixCache::remove_shorter(Node* parent, Children::iterator newcomer) {
  if (newcomer == parent->children.begin()) return;
  const auto before = std::prev(newcomer);
  const auto size = static_cast<std::int64_t>(before->first.size());
  if (size < kKvBlock && before->second->holders == 0 && common(before->first, newcomer->first) == size)
    evict(before->second.get());
}

// Takes a node and all that stands on it out of the tree.
void PrefixCache::forget(Node* node) {
  Node* parent = node->parent;
  std::vector<std::unique_ptr<Node>> rest;
  rest.push_back(std::move(node->place->second));
  parent->children.erase(node->place);
  while (!rest.empty()) {
    std::unique_ptr<Node> one = std::move(rest.back());
    rest.pop_back();
    for (auto& [key, child] : one->children) rest.push_back(std::move(child));
    one->children.clear();
    one->parent = nullptr;
    if (one->holders > 0) {
      one->lost = true;
      lost_.emplace(one.get(), std::move(one));
      continue;
    }
    leaves_.erase(one.get());
    --cached_;
    free_block(one->block, !one->proven);
  }
}

}  // namespace chiasm
