#include "models/new_folder.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "base/file.h"

namespace chiasm {
namespace {

namespace fs = std::filesystem;

// config.json is copied as it is, so that every reader of the original reads the halves. The language half needs the
// preprocessor's numbers too: it works out grids and feature ids without seeing a pixel.
constexpr std::string_view kVisionFiles[] = {"config.json", "preprocessor_config.json", "processor_config.json",
                                             "LICENSE", "NOTICE"};
constexpr std::string_view kLanguageFiles[] = {"config.json",
                                               "generation_config.json",
                                               "preprocessor_config.json",
                                               "video_preprocessor_config.json",
                                               "processor_config.json",
                                               "tokenizer.json",
                                               "tokenizer_config.json",
                                               "special_tokens_map.json",
                                               "added_tokens.json",
                                               "vocab.json",
                                               "merges.txt",
                                               "chat_template.json",
                                               "chat_template.jinja",
                                               "LICENSE",
                                               "NOTICE"};

// rename(2) does not replace what somebody else put there meanwhile.
Status move(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return {};
  return fail(Code::kFailedPrecondition, "{}: {}", to.string(), std::strerror(errno));
}

}  // namespace

std::span<const std::string_view> vision_side_files() { return kVisionFiles; }
std::span<const std::string_view> language_side_files() { return kLanguageFiles; }

Status copy_files(const fs::path& from, const fs::path& to, std::span<const std::string_view> names) {
  std::error_code error;
  fs::create_directories(to, error);
  for (const std::string_view name : names) {
    if (error) break;
    if (fs::exists(to / name, error) || error) continue;
    if (fs::is_regular_file(from / name, error)) {
      fs::copy_file(from / name, to / name, error);
    } else {
      error.clear();  // absent: most of these files are optional
    }
  }
  if (error) return fail(Code::kUnavailable, "{}: {}", to.string(), error.message());
  return {};
}

Result<fs::path> checked_new_folder(const fs::path& given) {
  fs::path out = given.has_filename() ? given : given.parent_path();
  std::error_code error;
  if (!out.has_filename())
    return fail(Code::kInvalidArgument, "'{}': expected the name of a folder to make", out.string());
  if (fs::is_symlink(out, error) && !fs::exists(out, error))
    return fail(Code::kFailedPrecondition, "{}: a link to something that is not there", out.string());
  if (!fs::exists(out, error) && !error) return out;
  if (error || !fs::is_directory(out, error))
    return fail(Code::kFailedPrecondition, "{}: expected a folder that is empty or not there{}", out.string(),
                error ? ": " + error.message() : ", got a file");
  const fs::directory_iterator entries(out, error);
  if (error) return fail(Code::kFailedPrecondition, "{}: {}", out.string(), error.message());
  if (entries == fs::directory_iterator()) return out;
  return fail(Code::kFailedPrecondition, "{}: expected a folder that is empty or not there, but it holds '{}'",
              out.string(), entries->path().filename().string());
}

NewFolder::NewFolder(fs::path path, bool inside) : path_(std::move(path)), inside_(inside) {}
NewFolder::NewFolder(NewFolder&& other) noexcept : path_(std::exchange(other.path_, {})), inside_(other.inside_) {}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

Result<NewFolder> NewFolder::make(const fs::path& out) {
  std::error_code error;
  const bool inside = fs::is_directory(out, error);
  const fs::path parent = inside ? out : fs::absolute(out, error).parent_path();
  if (inside) error.clear();
  if (!error) fs::create_directories(parent, error);
  if (error) return fail(Code::kInvalidArgument, "{}: {}", out.string(), error.message());
  const fs::path path = parent / temporary_name(inside ? "new" : out.filename().string());
  if (!fs::create_directory(path, error)) return fail(Code::kInvalidArgument, "{}: {}", path.string(), error.message());
  return NewFolder(path, inside);
}

tl::unexpected<Error> NewFolder::abandon(Error why) {
  std::error_code error;
  fs::remove_all(path_, error);
  if (error) why.message += fmt::format(" (and {} could not be removed: {})", path_.string(), error.message());
  path_.clear();
  return tl::unexpected(std::move(why));
}

Status NewFolder::publish(const fs::path& out) {
  if (!inside_) {
    RETURN_IF_ERROR(move(path_, out));
    path_.clear();
    return {};
  }
  std::error_code error;
  std::vector<fs::path> names, moved;
  for (const auto& entry : fs::directory_iterator(path_, error)) names.push_back(entry.path().filename());
  if (error) return fail(Code::kUnavailable, "{}: {}", path_.string(), error.message());
  for (const fs::path& name : names) {
    if (auto status = move(path_ / name, out / name); !status) {
      for (const fs::path& back : moved) (void)move(out / back, path_ / back);  // all or nothing
      return status;
    }
    moved.push_back(name);
  }
  fs::remove(path_, error);
  path_.clear();
  return {};
}

}  // namespace chiasm
