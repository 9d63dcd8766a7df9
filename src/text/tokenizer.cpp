#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "text/split.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace chiasm {
namespace {

constexpr std::uint64_t kMaxFile = 256ULL << 20;

}  // namespace

struct Tokenizer::Data {
  std::string source;
  TokenizerParts parts;
};

Tokenizer::Tokenizer(std::unique_ptr<const Data> data) : data_(std::move(data)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& dir_or_file) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(dir_or_file, ignored);
  const std::filesystem::path file = folder ? dir_or_file / "tokenizer.json" : dir_or_file;
  const auto json = read_text_file(file, kMaxFile);
  if (!json && json.error().code == Code::kNotFound) {
    const std::filesystem::path folder_of = file.parent_path();
    const bool parts = std::filesystem::exists(folder_of / "vocab.json", ignored) &&
                       std::filesystem::exists(folder_of / "merges.txt", ignored);
    return fail(
        Code::kNotFound,
        "{}: no such file. It holds the tokenizer's vocabulary, merges and added tokens, and is among the files "
        "of the model's page on the hub{}",
        file.string(), parts ? "; vocab.json and merges.txt, which are there, are not read without it" : "");
  }
  if (!json) return tl::unexpected<Error>(json.error());
  return parse(*json, file.string());
}

Result<Tokenizer> Tokenizer::parse(std::string_view json, std::string source) {
  ASSIGN_OR_RETURN(TokenizerParts parts, parse_tokenizer_json(json, source));
  return Tokenizer(std::make_unique<const Data>(Data{std::move(source), std::move(parts)}));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  const TokenizerParts& parts = data_->parts;
  std::string repaired;
  if (!is_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  std::string normalized;
  if (parts.nfc && !is_surely_nfc(text)) {
    normalized = to_nfc(text);
    text = normalized;
  }
  std::vector<std::int32_t> out;
  out.reserve(text.size() / 4 + 1);
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, qwen2_piece(text));
    text.remove_prefix(piece.size());
    const std::int32_t whole = parts.ignore_merges ? parts.vocabulary.find(piece) : -1;
    if (parts.vocabulary.kind(whole) == Vocabulary::Kind::kBase) {
      out.push_back(whole);
    } else {
      parts.bpe.encode(piece, out);
    }
  }
  return out;
}

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto& added = data_->parts.added;
  const auto found =
      std::lower_bound(added.begin(), added.end(), token,
                       [](const auto& entry, std::string_view content) { return entry.first < content; });
  if (found != added.end() && found->first == token) return found->second;
  const std::int32_t id = data_->parts.vocabulary.find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const { return data_->parts.vocabulary.bytes(id); }

bool Tokenizer::is_special(std::int32_t id) const {
  return data_->parts.vocabulary.kind(id) == Vocabulary::Kind::kSpecial;
}

bool Tokenizer::is_added(std::int32_t id) const {
  return is_special(id) || data_->parts.vocabulary.kind(id) == Vocabulary::Kind::kAdded;
}

std::int64_t Tokenizer::size() const { return data_->parts.vocabulary.size(); }

const std::string& Tokenizer::source() const { return data_->source; }

}  // namespace chiasm
