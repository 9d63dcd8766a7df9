// The ConstraintState of a grammar: masks from all positions of a Reader, kept while they may come again.
//
// Thread contract: one thread a SequenceState; grammar and tokens are shared.
#pragma once

#include <memory>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/reader.h"
#include "grammar/token_constraint.h"
#include "grammar/token_tree.h"

namespace chiasm {

class SequenceState : public ConstraintState {
 public:
  SequenceState(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTree> tokens);

  void mask(std::int64_t remaining, TokenMask& mask) override;
  bool may_end() const override;
  void accept(std::int32_t id) override;

  // The same a byte at a time; false (and nothing may follow any more) where the byte fits nowhere.
  bool accept_byte(std::uint8_t byte);
  // At most so many tokens finish the text.
  std::int64_t cost() const;

 private:
  // What a walk over the tokens found: those after which the text can be finished in at most `limit` tokens.
  struct Found {
    TokenMask* mask = nullptr;
    std::int64_t limit = 0;
    std::int64_t lowest = kNever, highest = 0;  // of what the tokens found leave to be done
    bool refused = false;                       // a token would have fitted but for the limit

    bool add(std::int64_t cost, std::span<const std::int32_t> ids);
  };
  struct Known {
    Position position;
    std::int64_t highest = 0;
    TokenMask mask{0};
  };

  void walk(const Position& position, Found& found);
  void walk_leaf(const Position& position, Found& found);
  void walk_string(const Position& position, Found& found);
  void walk_name(const Position& position, Found& found);
  static void add_groups(const StringTokens& known, std::span<const std::int64_t> costs, Found& found);
  void walk_exit(std::uint32_t node, const Reader::Positions& after, Found& found);
  void walk_below(std::uint32_t node, const Reader::Positions& from, Found& found);
  std::int64_t lowest_cost(const Reader::Positions& positions) const;

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTree> tokens_;
  Reader reader_;
  Reader::Positions positions_;
  std::vector<Known> known_;
  std::size_t next_known_ = 0;
  std::vector<std::int64_t> group_costs_;
  std::vector<Reader::Positions> levels_;  // of a walk: the positions at each depth
};

}  // namespace chiasm
