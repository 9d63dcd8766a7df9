#include "http/multipart.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "http/text.h"

namespace chiasm {
namespace {

constexpr std::size_t kMaxPartHeaders = 8 << 10;
constexpr std::size_t kMaxBoundary = 70;

tl::unexpected<Error> malformed(std::string_view why) {
  return fail(Code::kInvalidArgument, "malformed multipart body: {}", why);
}

// `form-data; name="x"; filename="y"`: the value, then its parameters.
class Parameters {
 public:
  explicit Parameters(std::string_view text) : rest_(text) {}

  std::string_view value() {
    const std::size_t end = std::min(rest_.find(';'), rest_.size());
    const std::string_view value = trimmed(rest_.substr(0, end));
    rest_.remove_prefix(end);
    return value;
  }

  struct One {
    std::string name, value;
  };
  // Nothing at the end.
  Result<std::optional<One>> next() {
    skip_blanks();
    if (rest_.empty()) return std::nullopt;
    if (rest_.front() != ';') return malformed("parameters of a header must be separated by ';'");
    rest_.remove_prefix(1);
    skip_blanks();
    if (rest_.empty()) return std::nullopt;  // a semicolon at the end, which some clients leave there
    One one;
    one.name = lower(token());
    skip_blanks();
    if (one.name.empty() || rest_.empty() || rest_.front() != '=')
      return malformed("a parameter of a header must be name=value");
    rest_.remove_prefix(1);
    skip_blanks();
    if (rest_.starts_with('"')) {
      ASSIGN_OR_RETURN(one.value, quoted());
    } else {
      one.value = token();
      if (one.value.empty()) return malformed("a parameter of a header has no value");
    }
    return one;
  }

 private:
  void skip_blanks() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) rest_.remove_prefix(1);
  }

  std::string_view token() {
    std::size_t size = 0;
    while (size < rest_.size() && is_token_char(rest_[size])) ++size;
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }

  Result<std::string> quoted() {
    std::string out;
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      char c = rest_[i];
      if (c == '"') {
        rest_.remove_prefix(i + 1);
        return out;
      }
      // Only what must be escaped is: in C:\pictures\x.png the backslashes mean themselves.
      if (c == '\\' && i + 1 < rest_.size() && (rest_[i + 1] == '"' || rest_[i + 1] == '\\')) c = rest_[++i];
      out += c;
    }
    return malformed("a quoted string is not closed");
  }

  std::string_view rest_;
};

Result<std::string> parse_boundary(std::string_view content_type) {
  Parameters parameters(content_type);
  if (!same_word(parameters.value(), "multipart/form-data"))
    return fail(Code::kInvalidArgument, "the Content-Type must be multipart/form-data");
  std::optional<std::string> boundary;
  for (;;) {
    ASSIGN_OR_RETURN(auto one, parameters.next());
    if (!one) break;
    if (one->name != "boundary") continue;
    if (boundary) return malformed("its Content-Type has two boundaries");
    boundary = std::move(one->value);
  }
  const auto allowed = [](char c) {
    return is_digit(c) || is_letter(c) ||
           (c != '\0' && std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos);
  };
  if (!boundary || boundary->empty() || boundary->size() > kMaxBoundary || boundary->back() == ' ' ||
      !std::all_of(boundary->begin(), boundary->end(), allowed))
    return malformed("its Content-Type must have a boundary of 1 to 70 characters (RFC 2046, section 5.1.1)");
  return *std::move(boundary);
}

Status parse_disposition(std::string_view value, FormPart& part) {
  Parameters parameters(value);
  if (!same_word(parameters.value(), "form-data")) return malformed("a part's Content-Disposition must be form-data");
  bool named = false, file = false;
  for (;;) {
    ASSIGN_OR_RETURN(auto one, parameters.next());
    if (!one) break;
    // "filename*" is of mail and must not be used here (RFC 7578, section 4.2).
    if (one->name != "name" && one->name != "filename") continue;
    bool& seen = one->name == "name" ? named : file;
    if (std::exchange(seen, true)) return malformed("a part's Content-Disposition names something twice");
    (one->name == "name" ? part.name : part.file_name) = std::move(one->value);
  }
  if (part.name.empty()) return malformed("a part has no name");
  return {};
}

Status parse_header(std::string_view line, FormPart& part, bool& disposed) {
  const std::size_t colon = line.find(':');
  const std::string_view name = line.substr(0, std::min(colon, line.size()));
  if (colon == std::string_view::npos || name.empty() || !std::all_of(name.begin(), name.end(), is_token_char))
    return malformed("a header of a part must be name: value");
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (std::any_of(value.begin(), value.end(), is_control))
    return malformed("a header of a part holds control characters");
  if (same_word(name, "content-disposition")) {
    if (std::exchange(disposed, true)) return malformed("a part has two Content-Dispositions");
    return parse_disposition(value, part);
  }
  if (same_word(name, "content-type")) part.content_type = value;
  if (same_word(name, "content-transfer-encoding") && !same_word(value, "binary") && !same_word(value, "8bit") &&
      !same_word(value, "7bit"))
    return malformed("a part is encoded for transfer, which forms must not be (RFC 7578, section 4.7)");
  return {};
}

// Takes the headers and the empty line after them from the front of `rest`.
Status parse_part_head(std::string_view& rest, FormPart& part) {
  bool disposed = false;
  for (std::size_t used = 0;;) {
    const std::size_t end = rest.substr(0, kMaxPartHeaders + 2).find("\r\n");
    if (end == std::string_view::npos) return malformed("a part's headers do not end");
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    if (line.empty()) break;
    used += end + 2;
    if (used > kMaxPartHeaders) return malformed("a part's headers are larger than 8 KiB");
    RETURN_IF_ERROR(parse_header(line, part, disposed));
  }
  if (!disposed) return malformed("a part has no Content-Disposition");
  return {};
}

// A line "--boundary" or "--boundary--", with blanks at its end allowed.
struct Delimiter {
  std::size_t at = 0;    // where the content before it ends: the line break belongs to the delimiter
  std::size_t next = 0;  // where what follows begins
  bool closing = false;
};

std::optional<Delimiter> find_delimiter(std::string_view body, std::size_t from, const std::string& mark) {
  for (std::size_t at = from; (at = body.find(mark, at)) != std::string_view::npos; ++at) {
    // At the very start there is no line break before it.
    const bool begins_line = at == 0 || (at >= from + 2 && body.substr(at - 2, 2) == "\r\n");
    if (!begins_line) continue;
    Delimiter found{at == 0 ? 0 : at - 2, at + mark.size(), false};
    if (body.substr(found.next, 2) == "--") {
      found.closing = true;
      found.next += 2;
    }
    std::size_t line_end = found.next;
    while (line_end < body.size() && (body[line_end] == ' ' || body[line_end] == '\t')) ++line_end;
    if (body.substr(line_end, 2) == "\r\n") {
      found.next = line_end + 2;
      return found;
    }
    if (found.closing && line_end == body.size()) return found;
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<FormPart>> parse_multipart(std::string_view content_type, std::string_view body,
                                              std::size_t max_parts) {
  ASSIGN_OR_RETURN(const std::string boundary, parse_boundary(content_type));
  const std::string mark = "--" + boundary;
  auto delimiter = find_delimiter(body, 0, mark);
  if (!delimiter) return malformed("its boundary does not appear");
  std::vector<FormPart> parts;
  while (!delimiter->closing) {
    if (parts.size() == max_parts) return malformed(fmt::format("it has more than {} parts", max_parts));
    FormPart part;
    std::string_view rest = body.substr(delimiter->next);
    RETURN_IF_ERROR(parse_part_head(rest, part));
    const std::size_t begin = body.size() - rest.size();
    // The line break after the headers serves an empty part as the one before its delimiter.
    delimiter = find_delimiter(body, begin - 2, mark);
    if (!delimiter) return malformed("its last boundary is missing");
    part.bytes = delimiter->at > begin ? body.substr(begin, delimiter->at - begin) : std::string_view();
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace chiasm
