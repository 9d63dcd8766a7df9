#include "app/command.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <utility>

#include <CLI/CLI.hpp>

namespace chiasm {
namespace {

bool looks_like_frame(const std::string& word) {
  std::error_code error;
  const std::filesystem::path path(word);
  if (std::filesystem::is_regular_file(path, error)) return true;
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::array<std::string_view, 8> kEndings{".png", ".jpg", ".jpeg", ".webp",
                                                     ".gif", ".bmp", ".dib",  ".safetensors"};
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

constexpr std::string_view kPlainWord = "\x02\x02";  // nobody types that

CLI::Validator unmark() {
  return {[](std::string& word) {
            if (word.starts_with(kPlainWord)) word.erase(0, kPlainWord.size());
            return std::string();
          },
          ""};
}

}  // namespace

std::vector<std::string> mark_plain_words(std::vector<std::string> words) {
  const auto dashes = std::find(words.begin(), words.end(), "--");
  if (dashes == words.end()) return words;
  std::for_each(dashes + 1, words.end(), [](std::string& word) { word.insert(0, kPlainWord); });
  words.erase(dashes);
  return words;
}

CLI::Option* add_word(CLI::App& app, const std::string& name, std::string& word, const std::string& help) {
  return app.add_option(name, word, help)->transform(unmark());
}

CLI::Option* add_words(CLI::App& app, const std::string& name, std::vector<std::string>& words,
                       const std::string& help) {
  return app.add_option(name, words, help)->transform(unmark());
}

std::vector<std::string> take_frame_lists(std::vector<std::string> words, FrameLists& lists) {
  std::vector<std::string> out;
  std::size_t i = 0;
  const auto is_word = [&] { return i < words.size() && (words[i].empty() || words[i][0] != '-'); };
  while (i < words.size()) {
    const bool video = words[i] == "--video";
    out.push_back(std::move(words[i++]));
    if (!video) continue;
    std::vector<std::string> frames;
    while (is_word() && looks_like_frame(words[i])) frames.push_back(std::move(words[i++]));
    // A first word that is no file still is what the user means by a frame.
    if (frames.empty() && is_word()) frames.push_back(std::move(words[i++]));
    if (frames.empty()) continue;
    out.push_back(std::to_string(lists.size()));
    lists.push_back(std::move(frames));
  }
  return out;
}

void add_video_option(CLI::App& app, std::vector<std::size_t>& videos) {
  app.add_option("--video", videos, "The frames of a video, in order. Again for more")
      ->type_name("FRAME")
      ->allow_extra_args(false);
}

Status check_frame_lists(const FrameLists& lists) {
  for (const std::vector<std::string>& frames : lists)
    if (!looks_like_frame(frames.front()))
      return fail(Code::kInvalidArgument, "--video: expected the files of the frames, and '{}' is none",
                  frames.front());
  return {};
}

}  // namespace chiasm
