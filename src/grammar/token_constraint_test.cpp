#include "grammar/token_constraint.h"

#include <algorithm>
#include <functional>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "grammar/sequence_state.h"
#include "grammar/test_languages.h"
#include "grammar/test_schema_validator.h"
#include "grammar/test_schemas.h"

namespace chiasm {
namespace {

using test::allowed;
using test::compile;
using test::Language;
using test::qwen2;
using test::toytown;

// Picks one of the allowed tokens.
using Taste = std::function<std::int32_t(const std::vector<std::int32_t>&, std::mt19937_64&)>;

std::int32_t any_token(const std::vector<std::int32_t>& ids, std::mt19937_64& random) {
  return ids[random() % ids.size()];
}

// The most of what `score` likes, any one of equals.
Taste most(const Language& language, std::function<int(std::string_view)> score) {
  return [&language, score = std::move(score)](const std::vector<std::int32_t>& ids, std::mt19937_64& random) {
    int best = std::numeric_limits<int>::min();
    std::vector<std::int32_t> equal;
    for (const std::int32_t id : ids) {
      const int here = score(language.tokenizer.token_bytes(id));
      if (here > best) equal.clear();
      best = std::max(best, here);
      if (here == best) equal.push_back(id);
    }
    return any_token(equal, random);
  };
}

std::vector<std::pair<std::string, Taste>> hostile_tastes(const Language& language) {
  const auto count = [](std::string_view text, std::string_view what) {
    return static_cast<int>(std::count_if(text.begin(), text.end(), [&](char c) { return what.find(c) != what.npos; }));
  };
  return {
      {"longest", most(language, [](std::string_view t) { return static_cast<int>(t.size()); })},
      {"white space", most(language, [=](std::string_view t) { return count(t, " \n\t"); })},
      {"nesting",
       most(language, [=](std::string_view t) { return 3 * count(t, "[{") + count(t, ",:\"") - 9 * count(t, "]}"); })},
      {"never closing", most(language, [=](std::string_view t) { return -count(t, "\"]}"); })},
      {"escapes", most(language, [=](std::string_view t) { return 2 * count(t, "\\") + count(t, "uUdD"); })},
      {"broken characters", most(language, [](std::string_view t) {
         return static_cast<int>(
             std::count_if(t.begin(), t.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }));
       })}};
}

struct Walked {
  std::string text;
  std::int64_t tokens = 0;
  bool finished = false;
};

// Writes until the text may end and nothing more is wanted, or `budget` tokens are used up. At each step the promise is
// checked: what remains to be done fits what is left.
Walked walk(const Language& language, const TokenConstraint& constraint, const Taste& taste, std::int64_t budget,
            std::mt19937_64& random) {
  Walked out;
  const auto state = constraint.start();
  const auto& inner = dynamic_cast<const SequenceState&>(*state);
  TokenMask mask(language.size);
  const bool promised = inner.cost() <= budget;
  while (out.tokens < std::max<std::int64_t>(budget, inner.cost() + out.tokens)) {
    if (state->may_end() && random() % 2 == 0) break;
    state->mask(budget - out.tokens, mask);
    const std::vector<std::int32_t> ids = allowed(mask);
    if (ids.empty()) {
      EXPECT_TRUE(state->may_end()) << "stuck behind " << out.text;
      break;
    }
    const std::int32_t id = taste(ids, random);
    EXPECT_FALSE(language.tokenizer.is_added(id));
    const std::int64_t before = inner.cost();
    state->accept(id);
    out.text += language.tokenizer.token_bytes(id);
    ++out.tokens;
    if (promised) {
      EXPECT_LE(inner.cost(), budget - out.tokens) << "behind " << out.text;
    } else if (before > budget - out.tokens + 1) {
      EXPECT_LT(inner.cost(), before) << "behind " << out.text;
    }
    if (testing::Test::HasFailure()) break;
  }
  out.finished = state->may_end();
  return out;
}

void check_walks(const Language& language, const std::string& schema, const Taste& taste, const std::string& name,
                 const std::vector<std::int64_t>& budgets, int seeds) {
  const auto constraint = compile(language, schema);
  const test::SchemaValidator validator(schema);
  for (const std::int64_t budget : budgets)
    for (int seed = 0; seed < seeds; ++seed) {
      std::mt19937_64 random(static_cast<std::uint64_t>(seed) * 1000 + static_cast<std::uint64_t>(budget));
      const Walked walked = walk(language, *constraint, taste, budget, random);
      const auto problem = validator.violation(walked.text);
      ASSERT_TRUE(walked.finished && !problem) << name << ", " << schema << "\nbudget " << budget << ", seed " << seed
                                               << ", " << walked.tokens << " tokens: " << walked.text << "\n"
                                               << problem.value_or("unfinished");
      if (testing::Test::HasFailure()) return;
    }
}

const std::vector<std::int64_t> kBudgets = {1, 2, 3, 5, 8, 13, 21, 40, 90};

TEST(TokenConstraint, RandomTextsMatchTheirSchemas) {
  for (const std::string& schema : test::schemas())
    ASSERT_NO_FATAL_FAILURE(check_walks(toytown(), schema, any_token, "random", kBudgets, 6));
}

TEST(TokenConstraint, RandomTextsMatchTheirSchemasWithQwen2) {
  if (qwen2() == nullptr) GTEST_SKIP() << "no qwen2-tokenizer in CHIASM_SHARED";
  for (const std::string& schema : test::schemas())
    ASSERT_NO_FATAL_FAILURE(check_walks(*qwen2(), schema, any_token, "random", {3, 20, 60}, 2));
}

TEST(TokenConstraint, NoTasteLeadsAstray) {
  for (const auto& [name, taste] : hostile_tastes(toytown()))
    for (const std::string& schema : test::schemas())
      ASSERT_NO_FATAL_FAILURE(check_walks(toytown(), schema, taste, name, {4, 30, 200}, 2));
}

TEST(TokenConstraint, NoTasteLeadsAstrayWithQwen2) {
  if (qwen2() == nullptr) GTEST_SKIP() << "no qwen2-tokenizer in CHIASM_SHARED";
  for (const auto& [name, taste] : hostile_tastes(*qwen2()))
    for (std::size_t i = 0; i < test::schemas().size(); i += 5)
      ASSERT_NO_FATAL_FAILURE(check_walks(*qwen2(), test::schemas()[i], taste, name, {20}, 1));
}

// A mask says exactly what following the token's bytes says.
TEST(TokenConstraint, MasksAreWhatTheBytesSay) {
  const Language& language = toytown();
  std::mt19937_64 random(7);
  TokenMask mask(language.size);
  for (const std::string& schema : test::schemas()) {
    const auto constraint = compile(language, schema);
    for (int round = 0; round < 3; ++round) {
      const auto state = constraint->start();
      std::string text;
      for (std::int64_t remaining : {40, 39, 38, 37, 12, 11, 6, 5, 4, 3}) {
        state->mask(remaining, mask);
        const auto& inner = dynamic_cast<const SequenceState&>(*state);
        const bool promised = inner.cost() <= remaining;
        for (std::int32_t id = 0; id < language.size; ++id) {
          const std::string_view bytes = language.tokenizer.token_bytes(id);
          SequenceState copy = inner;
          copy.accept(id);
          const std::int64_t cost = copy.cost();
          const bool fits = !bytes.empty() && !language.tokenizer.is_added(id) && cost < kNever;
          if (promised) {
            ASSERT_EQ(mask.test(id), fits && cost <= remaining - 1)
                << schema << " behind '" << text << "', token '" << bytes << "', " << remaining << " left, cost "
                << cost;
          } else if (mask.test(id)) {
            ASSERT_TRUE(fits && cost < inner.cost()) << schema << " behind '" << text << "', token '" << bytes << "'";
          }
        }
        const std::vector<std::int32_t> ids = allowed(mask);
        if (ids.empty()) break;
        const std::int32_t id = any_token(ids, random);
        text += language.tokenizer.token_bytes(id);
        state->accept(id);
      }
    }
  }
}

TEST(TokenConstraint, AnyObject) {
  const auto constraint = json_object_constraint(toytown().vocabulary);
  const test::SchemaValidator validator(R"({"type": "object"})");
  auto tastes = hostile_tastes(toytown());
  tastes.emplace_back("random", any_token);
  for (const auto& [name, taste] : tastes)
    for (const std::int64_t budget : {2, 7, 60, 400}) {
      std::mt19937_64 random(static_cast<std::uint64_t>(budget));
      const Walked walked = walk(toytown(), *constraint, taste, budget, random);
      EXPECT_TRUE(walked.finished) << name << ": " << walked.text;
      EXPECT_EQ(validator.violation(walked.text), std::nullopt) << name << ": " << walked.text;
      std::int64_t depth = 0, deepest = 0;
      bool inside = false;
      for (std::size_t i = 0; i < walked.text.size(); ++i) {
        const char c = walked.text[i];
        if (inside && c == '\\') ++i;
        if (c == '"') inside = !inside;
        if (inside) continue;
        depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
        deepest = std::max(deepest, depth);
      }
      EXPECT_LE(deepest, 32);
    }
}

// Where the budget is too small for any text, the shortest is written.
TEST(TokenConstraint, TooLateTakesTheShortestWay) {
  const auto constraint = compile(toytown(), R"({"type": "object", "properties": {"a": {"type": "array",
      "items": {"type": "integer"}, "minItems": 2}}, "required": ["a"], "additionalProperties": false})");
  const auto cost = dynamic_cast<const SequenceState&>(*constraint->start()).cost();
  for (const std::int64_t budget : {std::int64_t{0}, std::int64_t{1}, cost - 1, cost}) {
    std::mt19937_64 random(3);
    const Walked walked = walk(toytown(), *constraint, any_token, budget, random);
    EXPECT_TRUE(walked.finished);
    EXPECT_LE(walked.tokens, cost);
    EXPECT_TRUE(std::regex_match(walked.text, std::regex(R"(\{"a":\[\d,\d\]\})"))) << walked.text;
  }
}

TEST(TokenConstraint, SequencesShareOneConstraint) {
  const auto constraint = compile(toytown(), test::schemas()[10]);
  const test::SchemaValidator validator(test::schemas()[10]);
  std::vector<std::string> texts(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < texts.size(); ++i)
      threads.emplace_back([&, i] {
        std::mt19937_64 random(i);
        texts[i] = walk(toytown(), *constraint, any_token, 60, random).text;
      });
  }
  for (const std::string& text : texts) EXPECT_EQ(validator.violation(text), std::nullopt) << text;
}

// Schemas from a seed.
class SchemaMaker {
 public:
  explicit SchemaMaker(std::uint64_t seed) : random_(seed) {}

  std::string make() {
    test::Document schema = value(0);
    if (schema.is_object()) schema["$defs"] = {{"a", value(2)}, {"b", value(1)}};
    return schema.dump();
  }

 private:
  using Document = test::Document;

  std::uint64_t below(std::uint64_t end) { return random_() % end; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::int64_t number() { return static_cast<std::int64_t>(below(60)) - 20; }
  std::string name() { return std::string(1, static_cast<char>('a' + below(4))) + (one_in(3) ? "b" : ""); }

  Document scalar() {
    switch (below(5)) {
      case 0: return number();
      case 1: return static_cast<double>(number()) / 4;
      case 2: return name();
      case 3: return one_in(2);
      default: return nullptr;
    }
  }

  Document value(int depth) {
    if (depth > 0 && one_in(12)) return true;
    switch (below(depth > 3 ? 5 : 10)) {
      case 0: return string();
      case 1: return numeric();
      case 2: return {{"type", one_in(2) ? "null" : "boolean"}};
      case 3: {
        Document out{{"enum", Document::array()}};
        for (std::uint64_t i = 0; i <= below(4); ++i) out["enum"].push_back(scalar());
        return out;
      }
      case 4: return {{"type", {"string", "integer", "null"}}};
      case 5: return {{"$ref", one_in(2) ? "#/$defs/a" : "#/$defs/b"}};
      case 6: {
        const char* const kind = one_in(4) ? "oneOf" : one_in(3) ? "allOf" : "anyOf";
        Document out{{kind, Document::array()}};
        for (std::uint64_t i = 0; i <= below(3); ++i) out[kind].push_back(value(depth + 1));
        return out;
      }
      case 7: return array(depth);
      default: return object(depth);
    }
  }

  Document string() {
    Document out{{"type", "string"}};
    if (one_in(3)) out["minLength"] = below(4);
    if (one_in(3)) out["maxLength"] = 2 + below(6);
    if (one_in(3)) out["pattern"] = std::vector<const char*>{"^[ab]+$", "a.c", "^\\d{1,4}(-\\d)?$", "x|^y"}[below(4)];
    return out;
  }

  Document numeric() {
    Document out{{"type", one_in(2) ? "integer" : "number"}};
    if (one_in(2)) out[one_in(3) ? "exclusiveMinimum" : "minimum"] = number();
    if (one_in(2)) out[one_in(3) ? "exclusiveMaximum" : "maximum"] = number() + 30;
    if (one_in(4)) out["multipleOf"] = 1 + below(5);
    return out;
  }

  Document array(int depth) {
    Document out{{"type", "array"}};
    if (one_in(2)) out["items"] = value(depth + 1);
    if (one_in(3)) out["prefixItems"] = {value(depth + 1), value(depth + 1)};
    if (one_in(2)) out["minItems"] = below(4);
    if (one_in(2)) out["maxItems"] = 1 + below(4);
    return out;
  }

  Document object(int depth) {
    Document out{{"type", "object"}, {"properties", Document::object()}, {"required", Document::array()}};
    for (std::uint64_t i = 0; i <= below(4); ++i) {
      const std::string member = name();
      out["properties"][member] = value(depth + 1);
      if (one_in(2)) out["required"].push_back(member);
    }
    if (one_in(3)) out["required"].push_back(name());
    if (one_in(2)) out["additionalProperties"] = one_in(2) ? Document(false) : value(depth + 1);
    if (one_in(4)) out["minProperties"] = below(4);
    if (one_in(4)) out["maxProperties"] = 1 + below(5);
    return out;
  }

  std::mt19937_64 random_;
};

TEST(TokenConstraint, RandomSchemas) {
  int compiled = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const std::string schema = SchemaMaker(seed).make();
    const auto constraint = json_schema_constraint(toytown().vocabulary, schema);
    if (!constraint) {
      EXPECT_TRUE(constraint.error().message.starts_with("schema, #")) << constraint.error().message << "\n" << schema;
      continue;
    }
    ++compiled;
    ASSERT_NO_FATAL_FAILURE(check_walks(toytown(), schema, any_token, "random schema", {2, 20, 70}, 3));
  }
  EXPECT_GT(compiled, 200);
}

}  // namespace
}  // namespace chiasm
