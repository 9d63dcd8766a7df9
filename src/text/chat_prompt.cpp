#include "text/chat_prompt.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"

namespace chiasm {
namespace {

constexpr std::uint64_t kMaxTemplateFile = 16 << 20;

// Digest of the Qwen2-VL template as its checkpoints carry it, without the block that puts a default system message
// first.
constexpr std::string_view kTemplateDigest = "1222513b1016d8ebd8518b1f23fef9bfc9575d8b2ce9243d0135859c6f52e138";

// What stands before and after the default system text in that block.
constexpr std::string_view kSystemBefore = "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n";
constexpr std::string_view kSystemAfter = "<|im_end|>\n{% endif %}";

Result<ChatTokens> find_tokens(const Tokenizer& tokenizer) {
  ChatTokens out;
  const std::array<std::pair<std::string_view, std::int32_t*>, 6> wanted = {{{"<|im_start|>", &out.im_start},
                                                                             {"<|im_end|>", &out.im_end},
                                                                             {"<|vision_start|>", &out.vision_start},
                                                                             {"<|vision_end|>", &out.vision_end},
                                                                             {"<|image_pad|>", &out.image_pad},
                                                                             {"<|video_pad|>", &out.video_pad}}};
  for (const auto& [name, id] : wanted) {
    const auto found = tokenizer.token_to_id(name);
    if (!found || !tokenizer.is_special(*found))
      return fail(Code::kNotFound, "{}: field 'added_tokens': no special token {}, which the chat template needs",
                  tokenizer.source(), name);
    *id = *found;
  }
  return out;
}

// The default system text of a template that is the known one otherwise; none where it has no such block.
Result<std::optional<std::string>> recognize(std::string_view text, const std::string& where) {
  std::string rest;
  for (const char c : text)
    if (c != '\r') rest += c;
  while (!rest.empty() && rest.back() == '\n') rest.pop_back();

  std::optional<std::string> system;
  if (const std::size_t block = rest.find(kSystemBefore); block != std::string::npos) {
    const std::size_t begin = block + kSystemBefore.size();
    const std::size_t end = rest.find(kSystemAfter, begin);
    // A system text that is itself Jinja, or writes special tokens, stays in and so fails the digest.
    if (end != std::string::npos) {
      std::string found = rest.substr(begin, end - begin);
      if (found.find("{{") == std::string::npos && found.find("{%") == std::string::npos &&
          found.find("{#") == std::string::npos && found.find("<|") == std::string::npos) {
        rest.erase(block, end + kSystemAfter.size() - block);
        system = std::move(found);
      }
    }
  }
  const std::string digest = digest_of(std::as_bytes(std::span(rest))).hex();
  if (digest != kTemplateDigest)
    return fail(Code::kUnimplemented,
                "{}: only the chat template of Qwen2-VL is supported (digest {} without its default system message), "
                "this one has digest {}",
                where, kTemplateDigest.substr(0, 16), digest.substr(0, 16));
  return system;
}

// The template's text, from a JSON file that may lack the field.
struct Found {
  std::string text;
  std::string where;
};
Result<std::optional<Found>> template_in_json(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const Json json, Json::load(file.string(), kMaxTemplateFile));
  if (!json.root().is_object()) return fail(Code::kInvalidArgument, "{}: expected a JSON object", json.root().where());
  const auto field = json.root().find("chat_template");
  if (!field || field->is_null()) return std::nullopt;
  ASSIGN_OR_RETURN(const std::string_view text, field->string());
  return Found{std::string(text), field->where()};
}

Result<std::optional<Found>> find_template(const std::filesystem::path& dir) {
  std::error_code ignored;
  const auto jinja = dir / "chat_template.jinja";
  if (std::filesystem::exists(jinja, ignored)) {
    ASSIGN_OR_RETURN(std::string text, read_text_file(jinja, kMaxTemplateFile));
    return Found{std::move(text), jinja.string()};
  }
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(dir / name, ignored)) continue;
    ASSIGN_OR_RETURN(auto found, template_in_json(dir / name));
    if (found) return found;
  }
  return std::nullopt;
}

bool is_role(std::string_view role) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !role.empty() && std::all_of(role.begin(), role.end(), fits);
}

// Segments with neighbouring text joined.
class PromptWriter {
 public:
  explicit PromptWriter(const ChatTokens& tokens) : tokens_(tokens) {}

  void text(std::string_view text) {
    if (text.empty()) return;
    if (prompt_.empty() || prompt_.back().kind != PromptSegment::Kind::kText)
      prompt_.push_back({PromptSegment::Kind::kText, {}, 0, 0});
    prompt_.back().text += text;
  }
  void special(std::int32_t id) { prompt_.push_back({PromptSegment::Kind::kSpecial, {}, id, 0}); }
  void begin_message(std::string_view role) {
    special(tokens_.im_start);
    text(role);
    text("\n");
  }
  void end_message() {
    special(tokens_.im_end);
    text("\n");
  }
  void vision(PromptSegment::Kind kind, bool add_id) {
    const bool image = kind == PromptSegment::Kind::kImage;
    const std::int64_t index = image ? images_++ : videos_++;
    if (add_id) text(fmt::format("{} {}: ", image ? "Picture" : "Video", index + 1));
    special(tokens_.vision_start);
    prompt_.push_back({kind, {}, 0, index});
    special(tokens_.vision_end);
  }
  Prompt take() { return std::move(prompt_); }

 private:
  const ChatTokens& tokens_;
  Prompt prompt_;
  std::int64_t images_ = 0;
  std::int64_t videos_ = 0;
};

}  // namespace

Result<ChatTemplate> standard_chat_template(const Tokenizer& tokenizer) {
  ChatTemplate out;
  ASSIGN_OR_RETURN(out.tokens, find_tokens(tokenizer));
  return out;
}

Result<ChatTemplate> load_chat_template(const std::filesystem::path& dir, const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(ChatTemplate out, standard_chat_template(tokenizer));
  ASSIGN_OR_RETURN(const auto found, find_template(dir));
  if (found) {
    ASSIGN_OR_RETURN(out.default_system, recognize(found->text, found->where));
  }
  return out;
}

Result<Prompt> render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages,
                           const ChatOptions& options) {
  if (messages.empty()) return fail(Code::kInvalidArgument, "messages: expected at least one, got none");
  PromptWriter writer(chat.tokens);
  if (chat.default_system && messages.front().role != "system") {
    writer.begin_message("system");
    writer.text(*chat.default_system);
    writer.end_message();
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (!is_role(message.role))
      return fail(Code::kInvalidArgument, "messages[{}].role: expected letters, digits, '_' or '-', got \"{}\"", i,
                  message.role);
    writer.begin_message(message.role);
    for (const ChatPart& part : message.parts) {
      switch (part.kind) {
        case ChatPart::Kind::kText: writer.text(part.text); break;
        case ChatPart::Kind::kImage: writer.vision(PromptSegment::Kind::kImage, options.add_vision_id); break;
        case ChatPart::Kind::kVideo: writer.vision(PromptSegment::Kind::kVideo, options.add_vision_id); break;
      }
    }
    writer.end_message();
  }
  if (options.add_generation_prompt) writer.begin_message("assistant");
  return writer.take();
}

std::vector<PromptPiece> tokenize(const Tokenizer& tokenizer, const Prompt& prompt) {
  std::vector<PromptPiece> out;
  const auto tokens = [&]() -> std::vector<std::int32_t>& {
    if (out.empty() || out.back().kind != PromptPiece::Kind::kTokens)
      out.push_back({PromptPiece::Kind::kTokens, {}, 0});
    return out.back().ids;
  };
  for (const PromptSegment& segment : prompt) {
    switch (segment.kind) {
      case PromptSegment::Kind::kText: {
        const auto ids = tokenizer.encode(segment.text);
        auto& run = tokens();
        run.insert(run.end(), ids.begin(), ids.end());
        break;
      }
      case PromptSegment::Kind::kSpecial: tokens().push_back(segment.id); break;
      case PromptSegment::Kind::kImage: out.push_back({PromptPiece::Kind::kImage, {}, segment.index}); break;
      case PromptSegment::Kind::kVideo: out.push_back({PromptPiece::Kind::kVideo, {}, segment.index}); break;
    }
  }
  return out;
}

}  // namespace chiasm
