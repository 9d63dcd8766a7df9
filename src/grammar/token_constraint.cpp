#include "grammar/token_constraint.h"

#include "grammar/json_schema.h"
#include "grammar/sequence_state.h"
#include "grammar/token_tree.h"

namespace chiasm {

namespace {

class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<const TokenTree> tokens, Grammar grammar)
      : tokens_(std::move(tokens)), grammar_(std::make_shared<const Grammar>(std::move(grammar))) {}

  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<SequenceState>(grammar_, tokens_); }

 private:
  std::shared_ptr<const TokenTree> tokens_;
  std::shared_ptr<const Grammar> grammar_;
};

// build() makes no other kind.
std::shared_ptr<const TokenTree> tree_of(std::shared_ptr<const ConstraintVocabulary> vocabulary) {
  return std::static_pointer_cast<const TokenTree>(std::move(vocabulary));
}

}  // namespace

std::shared_ptr<const TokenConstraint> json_object_constraint(std::shared_ptr<const ConstraintVocabulary> vocabulary) {
  auto tokens = tree_of(std::move(vocabulary));
  Grammar grammar = any_object_grammar(*tokens);
  return std::make_shared<const GrammarConstraint>(std::move(tokens), std::move(grammar));
}

Result<std::shared_ptr<const TokenConstraint>> json_schema_constraint(
    std::shared_ptr<const ConstraintVocabulary> vocabulary, std::string_view schema) {
  auto tokens = tree_of(std::move(vocabulary));
  ASSIGN_OR_RETURN(Grammar grammar, schema_grammar(schema, *tokens));
  return std::make_shared<const GrammarConstraint>(std::move(tokens), std::move(grammar));
}

}  // namespace chiasm
