// The Qwen2-VL chat template: messages to segments, segments to token runs and places for vision rows.
//
// Special tokens come from here only: a message's text, whatever it spells, stays text. How many rows a picture or
// video takes is the language layer's business. Thread contract: values and pure functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace chiasm {

struct ChatPart {
  enum class Kind : std::uint8_t { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;  // kText only

  static ChatPart of_text(std::string text) { return {Kind::kText, std::move(text)}; }
  static ChatPart image() { return {Kind::kImage, {}}; }
  static ChatPart video() { return {Kind::kVideo, {}}; }
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", ...: letters, digits, '_', '-'
  std::vector<ChatPart> parts;
};

// Ids of the tokens that the template writes.
struct ChatTokens {
  std::int32_t im_start = 0;
  std::int32_t im_end = 0;
  std::int32_t vision_start = 0;
  std::int32_t vision_end = 0;
  std::int32_t image_pad = 0;
  std::int32_t video_pad = 0;  // config.json names the last four too: check_tokenizer (language/) compares them
};

struct ChatTemplate {
  ChatTokens tokens;
  // Put first when the first message is not a system message; none: nothing is put first.
  std::optional<std::string> default_system = "You are a helpful assistant.";
};

// The template of a checkpoint folder, from the first of chat_template.jinja, chat_template.json and
// tokenizer_config.json (field chat_template) that has one. There is no Jinja engine here: a template that is not the
// one rendered below, up to its default system text and line ends, is refused, naming file and field. No template at
// all: the Qwen2-VL one. An error too where the tokenizer lacks one of the ChatTokens.
Result<ChatTemplate> load_chat_template(const std::filesystem::path& dir, const Tokenizer& tokenizer);

// The Qwen2-VL template for this tokenizer.
Result<ChatTemplate> standard_chat_template(const Tokenizer& tokenizer);

struct PromptSegment {
  enum class Kind : std::uint8_t { kText, kSpecial, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;        // kText: never empty, and never beside another kText
  std::int32_t id = 0;     // kSpecial: the token
  std::int64_t index = 0;  // kImage, kVideo: which one, from 0 in order of appearance, counted apart

  bool operator==(const PromptSegment&) const = default;
};

using Prompt = std::vector<PromptSegment>;

struct ChatOptions {
  bool add_vision_id = false;         // "Picture 1: " and "Video 1: " before each
  bool add_generation_prompt = true;  // ends with "<|im_start|>assistant\n"
};

// Each message is <|im_start|>{role}\n{parts}<|im_end|>\n, a picture <|vision_start|>{image}<|vision_end|>. An error
// for no messages and for a role of other characters.
Result<Prompt> render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages,
                           const ChatOptions& options = {});

// A run of token ids, or the place of a picture's or video's rows: image_pad or video_pad as often as it has rows.
struct PromptPiece {
  enum class Kind : std::uint8_t { kTokens, kImage, kVideo };
  Kind kind = Kind::kTokens;
  std::vector<std::int32_t> ids;  // kTokens: never empty, and never beside another kTokens
  std::int64_t index = 0;         // kImage, kVideo: as in PromptSegment
};

// The ids equal those Hugging Face gives for the whole rendered prompt: the text between two special tokens is encoded
// in one piece, whatever parts it came from.
std::vector<PromptPiece> tokenize(const Tokenizer& tokenizer, const Prompt& prompt);

}  // namespace chiasm
