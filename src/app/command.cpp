#include "app/command.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <utility>

namespace chiasm {
namespace {

bool looks_like_frame(const std::string& word) {
  std::error_code error;
  const std::filesystem::path path(word);
  if (std::filesystem::is_regular_file(path, error)) return true;
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::array<std::string_view, 7> kEndings{".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".dib"};
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

}  // namespace

std::vector<std::string> take_frame_lists(std::vector<std::string> words, FrameLists& lists) {
  std::vector<std::string> out;
  std::size_t i = 0;
  const auto is_word = [&] { return i < words.size() && (words[i].empty() || words[i][0] != '-'); };
  while (i < words.size()) {
    if (words[i] == "--") break;
    const bool video = words[i] == "--video";
    out.push_back(std::move(words[i++]));
    if (!video) continue;
    std::vector<std::string> frames;
    while (is_word() && looks_like_frame(words[i])) frames.push_back(std::move(words[i++]));
    // A first word that is no file still is what the user means by a frame: the error then names it.
    if (frames.empty() && is_word()) frames.push_back(std::move(words[i++]));
    if (frames.empty()) continue;
    out.push_back(std::to_string(lists.size()));
    lists.push_back(std::move(frames));
  }
  std::move(words.begin() + static_cast<std::ptrdiff_t>(i), words.end(), std::back_inserter(out));
  return out;
}

}  // namespace chiasm
