#include "tensor/npy.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

#include "tensor/dtype.h"

namespace chiasm {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::uint64_t kMaxHeader = 64 << 10;
constexpr std::size_t kMaxDimensions = 32;

struct NpyHeader {
  char order = '<';
  char kind = 'f';
  std::size_t width = 4;  // bytes
  bool fortran = false;
  std::vector<std::int64_t> shape;
};

// The header: a Python dict with three keys. Read here is the part of Python's literals that numpy writes.
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : text_(text) {}

  Result<NpyHeader> read() {
    NpyHeader out;
    bool descr = false, order = false, shape = false;
    RETURN_IF_ERROR(expect('{'));
    while (!next_is('}')) {
      ASSIGN_OR_RETURN(const std::string_view key, string());
      RETURN_IF_ERROR(expect(':'));
      if (key == "descr" && !descr) {
        descr = true;
        RETURN_IF_ERROR(read_descr(out));
      } else if (key == "fortran_order" && !order) {
        order = true;
        ASSIGN_OR_RETURN(out.fortran, boolean());
      } else if (key == "shape" && !shape) {
        shape = true;
        ASSIGN_OR_RETURN(out.shape, tuple());
      } else {
        return bad("expected each of 'descr', 'fortran_order' and 'shape' once, got '{}'", shown(key));
      }
      if (next_is('}')) break;
      RETURN_IF_ERROR(expect(','));
    }
    RETURN_IF_ERROR(expect('}'));
    skip_spaces();
    if (at_ != text_.size()) return bad("expected its end at byte {}, it has {}", at_, text_.size());
    if (!descr || !order || !shape)
      return bad("'{}' is missing", !descr ? "descr" : !order ? "fortran_order" : "shape");
    return out;
  }

 private:
  template <class... Args>
  static tl::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) {
    return fail(Code::kInvalidArgument, "npy header: {}", fmt::format(format, std::forward<Args>(args)...));
  }

  static std::string shown(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 40)) out += c >= ' ' && c <= '~' ? c : '?';
    return out;
  }

  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  bool next_is(char c) {
    skip_spaces();
    return at_ < text_.size() && text_[at_] == c;
  }

  Status expect(char c) {
    if (!next_is(c))
      return bad("expected '{}' at byte {}, got '{}'", c, at_, shown(text_.substr(std::min(at_, text_.size()), 1)));
    ++at_;
    return {};
  }

  Result<std::string_view> string() {
    skip_spaces();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') return bad("expected a string at byte {}", at_);
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) return bad("the string at byte {} has no end", at_);
    const std::string_view out = text_.substr(at_ + 1, end - at_ - 1);
    if (out.find('\\') != std::string_view::npos) return bad("the string at byte {} has an escape", at_);
    at_ = end + 1;
    return out;
  }

  Result<bool> boolean() {
    skip_spaces();
    for (const auto& [word, value] : {std::pair{std::string_view("True"), true}, {std::string_view("False"), false}})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    return bad("expected True or False at byte {}", at_);
  }

  Result<std::int64_t> dimension() {
    skip_spaces();
    const std::size_t begin = at_;
    std::int64_t out = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const int digit = text_[at_] - '0';
      if (out > (std::numeric_limits<std::int64_t>::max() - digit) / 10)
        return bad("the dimension at byte {} is larger than 64 bits hold", begin);
      out = out * 10 + digit;
    }
    if (at_ == begin) return bad("expected a dimension at byte {}", begin);
    if (text_[begin] == '0' && at_ - begin > 1) return bad("the dimension at byte {} begins with 0", begin);
    return out;
  }

  // (), (3,), (3, 4) or (3, 4,); (3) is no tuple.
  Result<std::vector<std::int64_t>> tuple() {
    std::vector<std::int64_t> out;
    RETURN_IF_ERROR(expect('('));
    bool comma = true;
    while (!next_is(')')) {
      if (!comma) return bad("expected ',' at byte {}", at_);
      if (out.size() == kMaxDimensions) return bad("more than {} dimensions", kMaxDimensions);
      ASSIGN_OR_RETURN(const std::int64_t size, dimension());
      out.push_back(size);
      comma = next_is(',');
      if (comma) ++at_;
    }
    if (out.size() == 1 && !comma) return bad("expected the tuple ({},), got ({})", out[0], out[0]);
    RETURN_IF_ERROR(expect(')'));
    return out;
  }

  Status read_descr(NpyHeader& out) {
    if (next_is('[')) return fail(Code::kUnimplemented, "npy header: arrays of records are not read");
    ASSIGN_OR_RETURN(const std::string_view descr, string());
    if (descr.find('O') != std::string_view::npos)
      return fail(Code::kInvalidArgument, "npy: object arrays (pickle) are not read");
    const bool marked = !descr.empty() && std::string_view("<>|=").find(descr[0]) != std::string_view::npos;
    out.order = marked ? descr[0] : '=';
    const std::string_view type = descr.substr(marked ? 1 : 0);
    if (type == "f2" || type == "f4" || type == "f8" || type == "i1" || type == "i2" || type == "i4" || type == "i8" ||
        type == "u1" || type == "u2" || type == "u4" || type == "u8") {
      out.kind = type[0];
      out.width = static_cast<std::size_t>(type[1] - '0');
      return {};
    }
    return bad("expected a dtype of f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8, got '{}'", shown(descr));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// The element's bits, whichever end came first.
std::uint64_t bits_of_element(const char* bytes, std::size_t width, bool big) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < width; ++i)
    out |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * (big ? width - 1 - i : i));
  return out;
}

// False for an integer that a double does not hold exactly.
bool to_double(std::uint64_t bits, const NpyHeader& header, double& out) {
  if (header.kind == 'f') {
    if (header.width == 2) out = f16_to_f32(static_cast<std::uint16_t>(bits));
    if (header.width == 4) out = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (header.width == 8) out = std::bit_cast<double>(bits);
    return true;
  }
  const int unused = 64 - static_cast<int>(8 * header.width);
  if (header.kind == 'u') {
    out = static_cast<double>(bits);
    return out < 0x1p64 && static_cast<std::uint64_t>(out) == bits;
  }
  const auto value = static_cast<std::int64_t>(bits << unused) >> unused;  // the sign, spread
  out = static_cast<double>(value);
  return out < 0x1p63 && static_cast<std::int64_t>(out) == value;
}

// The place in a file of Fortran order of each value in row-major order.
class FortranWalk {
 public:
  explicit FortranWalk(const std::vector<std::int64_t>& shape) : shape_(shape), at_(shape.size()), step_(shape.size()) {
    std::uint64_t step = 1;
    for (std::size_t d = 0; d < shape.size(); ++d) {
      step_[d] = step;
      step *= static_cast<std::uint64_t>(shape[d]);
    }
  }
  std::uint64_t place() const { return place_; }
  void advance() {
    for (std::size_t d = shape_.size(); d-- > 0;) {
      place_ += step_[d];
      if (++at_[d] < shape_[d]) return;
      place_ -= step_[d] * static_cast<std::uint64_t>(shape_[d]);
      at_[d] = 0;
    }
  }

 private:
  const std::vector<std::int64_t>& shape_;
  std::vector<std::int64_t> at_;
  std::vector<std::uint64_t> step_;
  std::uint64_t place_ = 0;
};

// What else people send as embeddings: nothing that holds a pickle is ever read.
std::string_view foreign_name(std::string_view bytes) {
  if (bytes.starts_with("PK\x03\x04")) return "a zip archive, as torch.save and numpy.savez write it";
  if (bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5) return "a pickle";
  if (bytes.empty()) return "nothing";
  return "something else";
}

Result<NpyHeader> read_header(std::string_view bytes, std::uint64_t& data) {
  if (!bytes.starts_with(kMagic))
    return fail(Code::kInvalidArgument,
                "npy: expected a file of numpy.save, beginning with \\x93NUMPY, got {}; pickles are never read",
                foreign_name(bytes));
  if (bytes.size() < kMagic.size() + 2)
    return fail(Code::kInvalidArgument, "npy: {} bytes, too few for a header", bytes.size());
  const auto major = static_cast<unsigned char>(bytes[6]), minor = static_cast<unsigned char>(bytes[7]);
  if (major < 1 || major > 3 || minor != 0)
    return fail(Code::kUnimplemented, "npy: expected format 1.0, 2.0 or 3.0, got {}.{}", major, minor);
  const std::size_t length_bytes = major == 1 ? 2 : 4, begin = kMagic.size() + 2 + length_bytes;
  if (bytes.size() < begin) return fail(Code::kInvalidArgument, "npy: {} bytes, too few for a header", bytes.size());
  const std::uint64_t length = bits_of_element(bytes.data() + begin - length_bytes, length_bytes, false);
  if (length > kMaxHeader)
    return fail(Code::kInvalidArgument, "npy: a header of {} bytes, the limit is {}", length, kMaxHeader);
  if (length > bytes.size() - begin)
    return fail(Code::kInvalidArgument, "npy: a header of {} bytes in a file of {}", length, bytes.size());
  data = begin + length;
  return HeaderReader(bytes.substr(begin, length)).read();
}

}  // namespace

Result<NpyArray> parse_npy(std::string_view bytes, std::uint64_t limit) try {
  std::uint64_t begin = 0;
  ASSIGN_OR_RETURN(const NpyHeader header, read_header(bytes, begin));
  std::uint64_t count = 1;
  bool empty = false;
  for (const std::int64_t size : header.shape) empty = empty || size == 0;
  for (const std::int64_t size : header.shape) {
    if (empty) break;
    if (count > limit / static_cast<std::uint64_t>(size))
      return fail(Code::kInvalidArgument, "npy: its shape has more than {} values", limit);
    count *= static_cast<std::uint64_t>(size);
  }
  if (empty) count = 0;
  if (count > limit) return fail(Code::kInvalidArgument, "npy: {} values, the limit is {}", count, limit);
  const std::uint64_t held = bytes.size() - begin;
  if (held % header.width != 0 || held / header.width != count)
    return fail(Code::kInvalidArgument, "npy: expected {} values of {} bytes behind the header, got {} bytes", count,
                header.width, held);

  NpyArray out{header.shape, std::vector<double>(count)};
  const bool big = header.order == '>';
  const char* data = bytes.data() + begin;
  FortranWalk walk(header.shape);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t place = header.fortran ? walk.place() : i;
    const std::uint64_t bits = bits_of_element(data + place * header.width, header.width, big);
    if (!to_double(bits, header, out.values[i]))
      return fail(Code::kInvalidArgument, "npy: value {} is an integer beyond 2^53 that is not read exactly", i);
    if (header.fortran) walk.advance();
  }
  return out;
} catch (const std::bad_alloc&) {
  return fail(Code::kResourceExhausted, "npy: no memory for its values");
}

}  // namespace chiasm
