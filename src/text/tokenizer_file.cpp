#include "text/tokenizer_file.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>

#include "base/json.h"
#include "text/split.h"
#include "text/utf8.h"

namespace chiasm {
namespace {

constexpr std::int64_t kMaxTokens = 1 << 22;  // the largest published vocabularies have 2^18

using Kind = Vocabulary::Kind;

// Optional fields: absent and null are alike.
std::optional<JsonValue> find_set(JsonValue object, std::string_view key) {
  auto value = object.find(key);
  return value && !value->is_null() ? value : std::nullopt;
}

Result<bool> flag(JsonValue object, std::string_view key, bool fallback) {
  const auto value = find_set(object, key);
  if (!value) return fallback;
  return value->boolean();
}

Status expect_type(JsonValue object, std::string_view expected) {
  ASSIGN_OR_RETURN(const JsonValue type, object.at("type"));
  ASSIGN_OR_RETURN(const std::string_view name, type.string());
  if (name != expected)
    return fail(Code::kUnimplemented, "{}: expected \"{}\", got \"{}\"", type.where(), expected, repair_utf8(name));
  return {};
}

Status expect_flag(JsonValue object, std::string_view key, bool expected, bool fallback) {
  ASSIGN_OR_RETURN(const bool value, flag(object, key, fallback));
  if (value != expected) {
    const auto found = object.find(key);
    return fail(Code::kUnimplemented, "{}: only {} is supported, got {}", found ? found->where() : object.where(),
                expected, value);
  }
  return {};
}

// Absent, null, or the empty string.
Status expect_empty(JsonValue object, std::string_view key) {
  const auto value = find_set(object, key);
  if (!value) return {};
  ASSIGN_OR_RETURN(const std::string_view text, value->string());
  if (!text.empty())
    return fail(Code::kUnimplemented, "{}: only null or \"\" is supported, got \"{}\"", value->where(), text);
  return {};
}

Result<bool> read_normalizer(JsonValue root) {
  const auto normalizer = find_set(root, "normalizer");
  if (!normalizer) return false;
  RETURN_IF_ERROR(expect_type(*normalizer, "NFC"));
  return true;
}

Status check_pre_tokenizer(JsonValue root) {
  ASSIGN_OR_RETURN(const JsonValue sequence, root.at("pre_tokenizer"));
  RETURN_IF_ERROR(expect_type(sequence, "Sequence"));
  ASSIGN_OR_RETURN(const JsonValue list, sequence.at("pretokenizers"));
  ASSIGN_OR_RETURN(const auto steps, list.elements());
  if (steps.size() != 2)
    return fail(Code::kUnimplemented, "{}: expected 2 steps, Split and ByteLevel, got {}", list.where(), steps.size());

  const JsonValue split = steps[0];
  RETURN_IF_ERROR(expect_type(split, "Split"));
  ASSIGN_OR_RETURN(const JsonValue pattern, split.at("pattern"));
  ASSIGN_OR_RETURN(const JsonValue regex, pattern.at("Regex"));
  ASSIGN_OR_RETURN(const std::string_view expression, regex.string());
  if (expression != qwen2_pattern())
    return fail(Code::kUnimplemented, "{}: only the Qwen2 split pattern is supported, {} got {}", regex.where(),
                qwen2_pattern(), expression);
  ASSIGN_OR_RETURN(const JsonValue behavior, split.at("behavior"));
  ASSIGN_OR_RETURN(const std::string_view behavior_name, behavior.string());
  if (behavior_name != "Isolated")
    return fail(Code::kUnimplemented, "{}: expected \"Isolated\", got \"{}\"", behavior.where(), behavior_name);
  RETURN_IF_ERROR(expect_flag(split, "invert", false, false));

  const JsonValue byte_level = steps[1];
  RETURN_IF_ERROR(expect_type(byte_level, "ByteLevel"));
  RETURN_IF_ERROR(expect_flag(byte_level, "add_prefix_space", false, true));
  return expect_flag(byte_level, "use_regex", false, true);
}

// Steps that change which ids come out, or how they read back, other than those we do.
Status check_surroundings(JsonValue root) {
  if (const auto post = find_set(root, "post_processor"))
    RETURN_IF_ERROR(expect_type(*post, "ByteLevel"));  // offsets only
  ASSIGN_OR_RETURN(const JsonValue decoder, root.at("decoder"));
  return expect_type(decoder, "ByteLevel");
}

Status check_model(JsonValue model) {
  RETURN_IF_ERROR(expect_type(model, "BPE"));
  RETURN_IF_ERROR(expect_flag(model, "byte_fallback", false, false));
  RETURN_IF_ERROR(expect_empty(model, "continuing_subword_prefix"));
  RETURN_IF_ERROR(expect_empty(model, "end_of_word_suffix"));
  if (const auto dropout = find_set(model, "dropout")) {
    ASSIGN_OR_RETURN(const double rate, dropout->number());
    if (rate != 0) return fail(Code::kUnimplemented, "{}: only null or 0 is supported, got {}", dropout->where(), rate);
  }
  return {};
}

struct NamedToken {
  std::int32_t id = 0;
  std::string_view name;
};

struct AddedToken {
  std::int32_t id = 0;
  std::string_view content;
  bool special = false;
  JsonValue field;
};

Result<std::vector<NamedToken>> read_vocab(JsonValue vocab) {
  ASSIGN_OR_RETURN(const auto members, vocab.members());
  std::vector<NamedToken> out;
  out.reserve(members.size());
  for (const auto& [name, value] : members) {
    ASSIGN_OR_RETURN(const std::int64_t id, value.integer(0, kMaxTokens - 1));
    out.push_back({static_cast<std::int32_t>(id), name});
  }
  return out;
}

Result<std::vector<AddedToken>> read_added(JsonValue root) {
  std::vector<AddedToken> out;
  const auto list = find_set(root, "added_tokens");
  if (!list) return out;
  ASSIGN_OR_RETURN(const auto elements, list->elements());
  for (const JsonValue element : elements) {
    ASSIGN_OR_RETURN(const JsonValue id_field, element.at("id"));
    ASSIGN_OR_RETURN(const std::int64_t id, id_field.integer(0, kMaxTokens - 1));
    ASSIGN_OR_RETURN(const JsonValue content_field, element.at("content"));
    ASSIGN_OR_RETURN(const std::string_view content, content_field.string());
    if (content.empty())
      return fail(Code::kInvalidArgument, "{}: an added token must not be empty", content_field.where());
    ASSIGN_OR_RETURN(const bool special, flag(element, "special", false));
    // These would take white space away from the text beside the token. single_word and normalized only say when a
    // token is found in text, which is never.
    RETURN_IF_ERROR(expect_flag(element, "lstrip", false, false));
    RETURN_IF_ERROR(expect_flag(element, "rstrip", false, false));
    out.push_back({static_cast<std::int32_t>(id), content, special, element});
  }
  return out;
}

Result<Vocabulary> build_vocabulary(JsonValue vocab_field, const std::vector<NamedToken>& base,
                                    const std::vector<AddedToken>& added) {
  std::int64_t size = 0;
  for (const auto& token : base) size = std::max<std::int64_t>(size, token.id + 1);
  for (const auto& token : added) size = std::max<std::int64_t>(size, token.id + 1);
  Vocabulary vocabulary(static_cast<std::size_t>(size));
  std::string bytes;
  for (const auto& [id, name] : base) {
    bytes.clear();
    // As in Hugging Face's decoder: a token with a character that stands for no byte means its own characters. No
    // text is encoded to it, since merges start from bytes.
    const bool reachable = from_byte_alphabet(name, bytes);
    if (vocabulary.kind(id) != Kind::kNone)
      return fail(Code::kInvalidArgument, "{}: two tokens with id {}, one of them '{}'", vocab_field.where(), id, name);
    vocabulary.set(id, reachable ? bytes : name, reachable ? Kind::kBase : Kind::kUnreachable);
  }
  if (const auto same = vocabulary.index(); same)
    return fail(Code::kInvalidArgument, "{}: ids {} and {} are the same token", vocab_field.where(), same->first,
                same->second);
  for (const auto& token : added) {
    const Kind kind = token.special ? Kind::kSpecial : Kind::kAdded;
    const Kind before = vocabulary.kind(token.id);
    if (before == Kind::kNone) {
      vocabulary.set(token.id, token.content, kind);
    } else if (before != Kind::kAdded && before != Kind::kSpecial && vocabulary.bytes(token.id) == token.content) {
      vocabulary.mark(token.id, kind);  // in model.vocab as well
    } else {
      return fail(Code::kInvalidArgument, "{}: id {} is given to '{}' and to another token", token.field.where(),
                  token.id, token.content);
    }
  }
  return vocabulary;
}

// The tokens of single bytes. All must be there: text is never dropped.
Result<std::array<std::int32_t, 256>> byte_tokens(JsonValue vocab_field, const Vocabulary& vocabulary) {
  std::array<std::int32_t, 256> out{};
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const std::int32_t id = vocabulary.find({&c, 1});
    if (id < 0) return fail(Code::kInvalidArgument, "{}: no token for the byte 0x{:02X}", vocab_field.where(), byte);
    if (vocabulary.kind(id) != Kind::kBase)
      return fail(Code::kUnimplemented, "{}: the token {} of the byte 0x{:02X} is an added token too",
                  vocab_field.where(), id, byte);
    out[static_cast<std::size_t>(byte)] = id;
  }
  return out;
}

// "a b" or ["a", "b"].
Result<std::pair<std::string_view, std::string_view>> merge_names(JsonValue merge) {
  if (merge.is_string()) {
    ASSIGN_OR_RETURN(const std::string_view text, merge.string());
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      return fail(Code::kInvalidArgument, "{}: expected two tokens with a space between, got \"{}\"", merge.where(),
                  text);
    return std::pair{text.substr(0, space), text.substr(space + 1)};
  }
  ASSIGN_OR_RETURN(const auto elements, merge.elements());
  if (elements.size() != 2)
    return fail(Code::kInvalidArgument, "{}: expected a pair of tokens, got {} elements", merge.where(),
                elements.size());
  ASSIGN_OR_RETURN(const std::string_view left, elements[0].string());
  ASSIGN_OR_RETURN(const std::string_view right, elements[1].string());
  return std::pair{left, right};
}

Result<Bpe> read_merges(JsonValue merges_field, const std::array<std::int32_t, 256>& bytes,
                        const Vocabulary& vocabulary) {
  ASSIGN_OR_RETURN(const auto merges, merges_field.elements());
  Bpe bpe(bytes, merges.size());
  std::string joined;
  std::uint32_t rank = 0;
  for (const JsonValue merge : merges) {
    ASSIGN_OR_RETURN(const auto names, merge_names(merge));
    joined.clear();
    if (!from_byte_alphabet(names.first, joined))
      return fail(Code::kInvalidArgument, "{}: '{}' is not written in the byte-level alphabet", merge.where(),
                  names.first);
    const std::size_t middle = joined.size();
    if (!from_byte_alphabet(names.second, joined))
      return fail(Code::kInvalidArgument, "{}: '{}' is not written in the byte-level alphabet", merge.where(),
                  names.second);
    const std::string_view whole = joined;
    const std::int32_t left = vocabulary.find(whole.substr(0, middle));
    const std::int32_t right = vocabulary.find(whole.substr(middle));
    const std::int32_t result = vocabulary.find(whole);
    if (left < 0 || right < 0 || result < 0)
      return fail(Code::kInvalidArgument, "{}: '{}' is not in model.vocab", merge.where(),
                  left < 0    ? std::string(names.first)
                  : right < 0 ? std::string(names.second)
                              : fmt::format("{}{}", names.first, names.second));
    if (middle == 0 || middle == joined.size())
      return fail(Code::kInvalidArgument, "{}: a merge of an empty token", merge.where());
    if (vocabulary.kind(result) != Kind::kBase)
      return fail(Code::kUnimplemented, "{}: its result, id {}, is an added token: text would turn into it",
                  merge.where(), result);
    bpe.add_merge(left, right, {rank++, result});
  }
  return bpe;
}

}  // namespace

Result<TokenizerParts> parse_tokenizer_json(std::string_view json, std::string source) {
  ASSIGN_OR_RETURN(const Json document, Json::parse(json, std::move(source)));
  const JsonValue root = document.root();
  ASSIGN_OR_RETURN(const JsonValue model, root.at("model"));
  RETURN_IF_ERROR(check_model(model));
  ASSIGN_OR_RETURN(const bool nfc, read_normalizer(root));
  RETURN_IF_ERROR(check_pre_tokenizer(root));
  RETURN_IF_ERROR(check_surroundings(root));
  ASSIGN_OR_RETURN(const bool ignore_merges, flag(model, "ignore_merges", false));

  ASSIGN_OR_RETURN(const JsonValue vocab_field, model.at("vocab"));
  ASSIGN_OR_RETURN(const auto base, read_vocab(vocab_field));
  ASSIGN_OR_RETURN(const auto added, read_added(root));
  ASSIGN_OR_RETURN(auto vocabulary, build_vocabulary(vocab_field, base, added));
  ASSIGN_OR_RETURN(const auto bytes, byte_tokens(vocab_field, vocabulary));
  ASSIGN_OR_RETURN(const JsonValue merges_field, model.at("merges"));
  ASSIGN_OR_RETURN(auto bpe, read_merges(merges_field, bytes, vocabulary));

  std::vector<std::pair<std::string, std::int32_t>> names;
  names.reserve(added.size());
  std::unordered_set<std::string_view> seen;
  for (const auto& token : added) {
    if (!seen.insert(token.content).second)
      return fail(Code::kInvalidArgument, "{}: '{}' is there twice", token.field.where(), token.content);
    names.emplace_back(token.content, token.id);
  }
  std::sort(names.begin(), names.end());
  return TokenizerParts{std::move(vocabulary), std::move(bpe), std::move(names), nfc, ignore_merges};
}

}  // namespace chiasm
