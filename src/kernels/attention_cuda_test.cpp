// Attention on the card against the reference, and bit for bit against itself: alone, in company, in chunks.
#include <array>
#include <numeric>

#include "kernels/test_cuda.h"

namespace chiasm {
namespace {

class AttentionCudaTest : public CudaTest {};

// Weights p of one row are rounded to BF16 before they meet the values, the result once more; values are below 1, the
// scores' own error (sums of exact products) is far below that.
constexpr float kAttention = 2 * kRounding;

// Whether single rows go to the kernel that splits keys into ranges: the others' bits are the tiles'.
bool can_decode(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  return (head_dim == 64 || head_dim == 128) && heads / kv_heads <= 16;
}

TEST_F(AttentionCudaTest, AttentionMatchesReferenceAndKeepsTheRowContract) {
  for (const std::int64_t head_dim : {80, 32, 20, 4, 64, 96, 128, 50}) {
    const std::int64_t heads = pick(1, 3), width = heads * head_dim;
    std::vector<std::int64_t> cu_seqlens{0};
    for (std::int64_t s = pick(1, 4); s > 0; --s) cu_seqlens.push_back(cu_seqlens.back() + pick(1, 400));
    cu_seqlens.push_back(cu_seqlens.back() + 1);
    if (head_dim == 80) cu_seqlens.push_back(cu_seqlens.back() + pick(1000, 1400));  // many tiles of keys
    const std::int64_t rows = cu_seqlens.back();
    const Matrix qkv = rounded(random(rows, 3 * width, 2.0F));
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    Matrix want(rows, width);
    ref_->attention(qkv.view().col_range(0, width), qkv.view().col_range(width, width),
                    qkv.view().col_range(2 * width, width), heads, scale, Segments(cu_seqlens), want.view());
    const OnCard on = on_card(qkv, DType::kBF16);
    const auto attend = [&](std::int64_t first, std::span<const std::int64_t> segments) {
      const OnCard out = poisoned(segments.back(), width, DType::kBF16, 8);
      const View part = on.view.row_range(first, segments.back());
      cuda_->attention(part.col_range(0, width), part.col_range(width, width), part.col_range(2 * width, width), heads,
                       scale, **cuda_->make_segments(segments), out.view);
      expect_untouched(out, 8);
      return back(out.view);
    };
    const Matrix got = attend(0, cu_seqlens);
    expect_near(got, want, 2 * kAttention, 0);  // values up to 2
    ASSERT_FALSE(HasFailure()) << "head size " << head_dim;
    for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
      const std::vector<std::int64_t> alone{0, cu_seqlens[s + 1] - cu_seqlens[s]};
      const Matrix own = attend(cu_seqlens[s], alone);
      ASSERT_EQ(std::memcmp(own.data(), got.row(cu_seqlens[s]), static_cast<std::size_t>(own.size()) * 4), 0) << s;
    }
  }
}

// Pictures' attention over what is hard for it: few rows, many segments, scores that outgrow the first keys', values
// that are not finite. Columns: q, k, v of heads of 80, and NaN behind each row and behind the last.
class SegmentAttentionCudaTest : public AttentionCudaTest {
 protected:
  static constexpr std::int64_t kHeadDim = 80;
  static constexpr float kScale = 0.11180339887F;  // 1 / sqrt(80)

  static std::vector<std::int64_t> cumulative(std::span<const std::int64_t> lengths) {
    std::vector<std::int64_t> out{0};
    for (const std::int64_t length : lengths) out.push_back(out.back() + length);
    return out;
  }
  Matrix reference(const Matrix& qkv, std::span<const std::int64_t> cu_seqlens) {
    const std::int64_t width = qkv.cols() / 3;
    Matrix out(qkv.rows(), width);
    ref_->attention(qkv.view().col_range(0, width), qkv.view().col_range(width, width),
                    qkv.view().col_range(2 * width, width), width / kHeadDim, kScale, Segments(cu_seqlens), out.view());
    return out;
  }
  Matrix attend(const Matrix& qkv, std::span<const std::int64_t> cu_seqlens) {
    const std::int64_t rows = qkv.rows(), width = qkv.cols() / 3;
    const OnCard on = poisoned(rows + 130, 3 * width, DType::kBF16, 8);
    const OnCard out = poisoned(rows + 130, width, DType::kBF16, 8);
    const View part = on.view.row_range(0, rows);
    cuda_->upload(values_of(qkv), part);
    cuda_->attention(part.col_range(0, width), part.col_range(width, width), part.col_range(2 * width, width),
                     width / kHeadDim, kScale, **cuda_->make_segments(cu_seqlens), out.view.row_range(0, rows));
    expect_untouched(out, 8);
    const Matrix behind = back(out.view.row_range(rows, 130));
    for (std::int64_t i = 0; i < behind.size(); ++i) EXPECT_TRUE(std::isnan(behind.data()[i])) << "behind the last row";
    return back(out.view.row_range(0, rows));
  }
  static void expect_same_bits(const Matrix& a, const Matrix& b, std::int64_t first, std::int64_t end) {
    for (std::int64_t row = first; row < end; ++row)
      ASSERT_EQ(std::memcmp(a.row(row), b.row(row), static_cast<std::size_t>(a.cols()) * 4), 0) << row;
  }
  // NaN where the reference has it, and only there.
  static void expect_near_or_nan(const Matrix& got, const Matrix& want, float tolerance) {
    for (std::int64_t i = 0; i < got.size(); ++i) {
      const float a = got.data()[i], b = want.data()[i];
      ASSERT_EQ(std::isnan(a), std::isnan(b)) << "at " << i / got.cols() << ", " << i % got.cols();
      if (std::isnan(b)) continue;
      ASSERT_NEAR(a, b, tolerance) << "at " << i / got.cols() << ", " << i % got.cols();
    }
  }
};

TEST_F(SegmentAttentionCudaTest, ManySegmentsOfAnyLengthMatchTheReference) {
  for (const std::int64_t heads : {1, 5, 16}) {
    std::vector<std::int64_t> lengths{1, 127, 128, 129, 1, 1, 256, 65, 64};
    for (std::int64_t i = pick(20, 40); i > 0; --i) lengths.push_back(pick(1, 3) == 1 ? pick(1, 4) : pick(1, 300));
    const std::vector<std::int64_t> cu_seqlens = cumulative(lengths);
    const Matrix qkv = rounded(random(cu_seqlens.back(), 3 * heads * kHeadDim, 2.0F));
    const Matrix got = attend(qkv, cu_seqlens);
    expect_near(got, reference(qkv, cu_seqlens), 2 * kAttention, 0);  // values up to 2
    ASSERT_FALSE(HasFailure()) << heads << " heads";
    expect_same_bits(got, attend(qkv, cu_seqlens), 0, got.rows());
  }
}

// Keys grow along the segment and rows' scores with them, from none to thousands of nats, up and down: such rows must
// be computed again, beside others of the same tile that need not.
TEST_F(SegmentAttentionCudaTest, RowsWhoseScoresOutgrowTheFirstKeysAreRight) {
  const std::int64_t heads = 2, width = heads * kHeadDim;
  const std::vector<std::int64_t> lengths{1100, 130, 128, 517}, cu_seqlens = cumulative(lengths);
  Matrix qkv = random(cu_seqlens.back(), 3 * width);
  for (std::int64_t row = 0; row < qkv.rows(); ++row) {
    std::int64_t key = 0;
    for (std::size_t s = 0; s < lengths.size(); ++s)
      if (row >= cu_seqlens[s]) key = row - cu_seqlens[s];
    // In nats, of the last of a thousand keys.
    const std::array<float, 7> growths{0, 60, 110, 120, 400, 3000, -900};
    for (std::int64_t head = 0; head < heads; ++head) {
      qkv.row(row)[head * kHeadDim] = growths[static_cast<std::size_t>(pick(0, 6))] / kScale / 64;
      qkv.row(row)[width + head * kHeadDim] = 64.0F * static_cast<float>(key) / 1000;
    }
  }
  qkv = rounded(std::move(qkv));
  const Matrix got = attend(qkv, cu_seqlens);
  // Scores of thousands are sums in F32 of another order: 2^-24 of 3300 * a few, in the exponent.
  expect_near(got, reference(qkv, cu_seqlens), kAttention + 0.004F, 0);
  ASSERT_FALSE(HasFailure());
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    const std::vector<std::int64_t> alone{0, lengths[s]};
    Matrix own(lengths[s], qkv.cols());
    std::copy_n(qkv.row(cu_seqlens[s]), own.size(), own.data());
    const Matrix bits = attend(own, alone);
    ASSERT_EQ(std::memcmp(bits.data(), got.row(cu_seqlens[s]), static_cast<std::size_t>(bits.size()) * 4), 0) << s;
  }
}

// A value that is not finite spoils what the softmax says it spoils: no other row, column or segment changes a bit.
TEST_F(SegmentAttentionCudaTest, WhatIsNotFiniteStaysWhereItBelongs) {
  const std::int64_t heads = 2, width = heads * kHeadDim;
  const std::vector<std::int64_t> lengths{150, pick(129, 255), 200}, cu_seqlens = cumulative(lengths);
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  Matrix qkv = rounded(random(cu_seqlens.back(), 3 * width, 2.0F));
  // So that an infinite key's score is infinite, for all rows of the first head.
  for (std::int64_t row = 0; row < qkv.rows(); ++row) qkv.row(row)[3] = 1.0F;
  const Matrix clean = attend(qkv, cu_seqlens);
  const std::int64_t first = cu_seqlens[1], end = cu_seqlens[2], last = end - 1;
  const auto check = [&](std::int64_t row, std::int64_t column, float value) {
    Matrix spoiled(qkv.rows(), qkv.cols());
    std::copy_n(qkv.data(), qkv.size(), spoiled.data());
    spoiled.row(row)[column] = value;
    const Matrix got = attend(spoiled, cu_seqlens);
    expect_near_or_nan(got, reference(spoiled, cu_seqlens), 2 * kAttention);
    ASSERT_FALSE(HasFailure()) << value << " in row " << row << ", column " << column;
    expect_same_bits(got, clean, 0, first);
    expect_same_bits(got, clean, end, qkv.rows());
    if (column >= width) return;
    expect_same_bits(got, clean, first, row);  // a query's own
    expect_same_bits(got, clean, row + 1, end);
  };
  for (const std::int64_t row : {first, first + 127, last, pick(first, last)}) {
    check(row, 3, nan), check(row, 3, infinity), check(row, 3, -infinity);
    check(row, width + 3, nan), check(row, width + 3, infinity), check(row, width + 3, -infinity);
    check(row, 2 * width + pick(0, width - 1), nan);
  }
  // All of the first 128 keys weigh nothing.
  Matrix far(qkv.rows(), qkv.cols());
  std::copy_n(qkv.data(), qkv.size(), far.data());
  for (std::int64_t row = first; row < first + 128; ++row) far.row(row)[width + 3] = -infinity;
  expect_near_or_nan(attend(far, cu_seqlens), reference(far, cu_seqlens), 2 * kAttention);
}

TEST_F(AttentionCudaTest, PagedAttentionMatchesReferenceInChunksAndDecode) {
  for (const auto& [kv_heads, group, head_dim] :
       {std::array<std::int64_t, 3>{1, 3, 128}, {2, 6, 128}, {4, 7, 128}, {2, 2, 64}, {1, 1, 20}, {3, 2, 36}}) {
    const std::int64_t heads = kv_heads * group;
    const KvShape shape{2, kv_heads, head_dim, 48};
    const std::int64_t layer = pick(0, 1), length = pick(300, 700), other = pick(1, 90);
    std::vector<std::int32_t> blocks(48);
    for (std::int32_t i = 0; i < 48; ++i) blocks[static_cast<std::size_t>(i)] = i;
    std::shuffle(blocks.begin(), blocks.end(), random_);
    const std::span<const std::int32_t> table(blocks.data(), 24), other_table(blocks.data() + 24, 24);
    const std::int64_t rows = length + other;
    const Matrix q = rounded(random(rows, heads * head_dim, 2.0F)),
                 k = rounded(random(rows, kv_heads * head_dim, 2.0F)), v = rounded(random(rows, kv_heads * head_dim));
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    const std::vector<SequenceRows> together{{table, 0, length}, {other_table, 0, other}};
    const auto ref_pool = *ref_->make_kv_pool(shape);
    Matrix want(rows, q.cols());
    ref_->kv_write(k.view(), v.view(), StepRows(together), layer, *ref_pool);
    ref_->paged_attention(q.view(), heads, scale, StepRows(together), layer, *ref_pool, want.view());

    const OnCard on_q = on_card(q, DType::kBF16), on_k = on_card(k, DType::kBF16), on_v = on_card(v, DType::kBF16);
    const auto run = [&](KvPool& pool, std::int64_t first, std::span<const SequenceRows> sequences, View out) {
      std::int64_t count = 0;
      for (const SequenceRows& sequence : sequences) count += sequence.count;
      const auto step = *cuda_->make_step(sequences, heads, shape);
      cuda_->kv_write(on_k.view.row_range(first, count), on_v.view.row_range(first, count), *step, layer, pool);
      cuda_->paged_attention(on_q.view.row_range(first, count), heads, scale, *step, layer, pool,
                             out.row_range(first, count));
    };
    const auto pool = *cuda_->make_kv_pool(shape), cut_pool = *cuda_->make_kv_pool(shape);
    const OnCard out = poisoned(rows, q.cols(), DType::kBF16), cut = poisoned(rows, q.cols(), DType::kBF16);
    run(*pool, 0, together, out.view);
    const Matrix got = back(out.view);
    expect_near(got, want, kAttention, 0);
    ASSERT_FALSE(HasFailure()) << "whole, head size " << head_dim;
    // In chunks of several rows the bits are the same; a single row is another kernel's, within tolerance.
    std::vector<bool> alone(static_cast<std::size_t>(rows), false);
    for (std::int64_t past = 0; past < length;) {
      const std::int64_t count = std::min(length - past, pick(0, 2) == 0 ? 1 : pick(2, 90));
      const std::vector<SequenceRows> chunk{{table, past, count}};
      run(*cut_pool, past, chunk, cut.view);
      if (count == 1) alone[static_cast<std::size_t>(past)] = true;
      past += count;
    }
    const Matrix pieces = back(cut.view.row_range(0, length));
    for (std::int64_t row = 0; row < length; ++row) {
      if (alone[static_cast<std::size_t>(row)]) continue;
      ASSERT_EQ(std::memcmp(pieces.row(row), got.row(row), static_cast<std::size_t>(q.cols()) * 4), 0) << row;
    }
    for (std::int64_t i = 0; i < pieces.size(); ++i)
      ASSERT_NEAR(pieces.data()[i], want.data()[i], kAttention) << "decode, head size " << head_dim << ", at " << i;
    // Two sequences that decode: alone and together, the same bits.
    const OnCard pair = poisoned(2, q.cols(), DType::kBF16), single = poisoned(1, q.cols(), DType::kBF16);
    const std::vector<SequenceRows> both{{table, length - 1, 1}, {other_table, other - 1, 1}};
    const std::vector<SequenceRows> second{{other_table, other - 1, 1}};
    const OnCard queries = on_card(rounded(random(2, q.cols(), 2.0F)), DType::kBF16);
    cuda_->paged_attention(queries.view, heads, scale, **cuda_->make_step(both, heads, shape), layer, *pool, pair.view);
    cuda_->paged_attention(queries.view.row_range(1, 1), heads, scale, **cuda_->make_step(second, heads, shape), layer,
                           *pool, single.view);
    const Matrix a = back(pair.view), b = back(single.view);
    ASSERT_EQ(std::memcmp(a.row(1), b.row(0), static_cast<std::size_t>(q.cols()) * 4), 0);
    // A copied block serves as the one it was copied from.
    const std::int32_t spare = blocks.back();
    cuda_->copy_kv_block(table[0], spare, *pool);
    std::vector<std::int32_t> through(table.begin(), table.end());
    through[0] = spare;
    const std::vector<SequenceRows> by_copy{{through, length - 1, 1}};
    const OnCard copied = poisoned(1, q.cols(), DType::kBF16);
    cuda_->paged_attention(queries.view.row_range(0, 1), heads, scale, **cuda_->make_step(by_copy, heads, shape), layer,
                           *pool, copied.view);
    const Matrix c = back(copied.view);
    ASSERT_EQ(std::memcmp(a.row(0), c.row(0), static_cast<std::size_t>(q.cols()) * 4), 0);
  }
}

// Rotation, the new keys and values and the attention in one call: of prompts, of prompts beside a sequence that
// decodes, of sequences that all decode.
TEST_F(AttentionCudaTest, StepAttentionMatchesReferenceAndKeepsTheRowContractOfDecode) {
  for (const auto& [kv_heads, group, head_dim] :
       {std::array<std::int64_t, 3>{2, 6, 128}, {4, 7, 128}, {1, 3, 64}, {1, 1, 20}, {2, 16, 128}}) {
    const std::int64_t heads = kv_heads * group, width = (heads + 2 * kv_heads) * head_dim, half = head_dim / 2;
    const KvShape shape{2, kv_heads, head_dim, 48};
    const std::int64_t layer = pick(0, 1), length = pick(200, 700), other = pick(1, 90), steps = pick(2, 40);
    std::vector<std::int32_t> blocks(48);
    for (std::int32_t i = 0; i < 48; ++i) blocks[static_cast<std::size_t>(i)] = i;
    std::shuffle(blocks.begin(), blocks.end(), random_);
    const std::span<const std::int32_t> table(blocks.data(), 24), other_table(blocks.data() + 24, 24);
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    const auto ref_pool = *ref_->make_kv_pool(shape), pool = *cuda_->make_kv_pool(shape);
    // Rows of what the card's calls gave for this input, and the reference's, whose rotated values are rounded too.
    struct Step {
      Matrix qkv, cos, sin, want;
    };
    const auto input = [&](std::span<const SequenceRows> sequences) {
      std::int64_t rows = 0;
      for (const SequenceRows& sequence : sequences) rows += sequence.count;
      Step out{rounded(random(rows, width, 2.0F)), Matrix(rows, half), Matrix(rows, half),
               Matrix(rows, heads * head_dim)};
      const Matrix angles = random(rows, half, 3.0F);
      for (std::int64_t i = 0; i < angles.size(); ++i) {
        out.cos.data()[i] = std::cos(angles.data()[i]);
        out.sin.data()[i] = std::sin(angles.data()[i]);
      }
      Matrix turned(rows, width);
      std::copy_n(out.qkv.data(), out.qkv.size(), turned.data());
      const StepProjections parts(turned.view(), heads, shape);
      ref_->rope(parts.q_and_k, heads + kv_heads, {out.cos.view(), out.sin.view()});
      turned = rounded(std::move(turned));
      ref_->kv_write(parts.k, parts.v, StepRows(sequences), layer, *ref_pool);
      ref_->paged_attention(parts.q, heads, scale, StepRows(sequences), layer, *ref_pool, out.want.view());
      return out;
    };
    const auto run = [&](const Step& in, std::int64_t first, std::span<const SequenceRows> sequences) {
      std::int64_t rows = 0;
      for (const SequenceRows& sequence : sequences) rows += sequence.count;
      const OnCard qkv = on_card(in.qkv, DType::kBF16), cos = on_card(in.cos, DType::kF32),
                   sin = on_card(in.sin, DType::kF32), out = poisoned(rows, heads * head_dim, DType::kBF16, 8);
      const auto step = *cuda_->make_step(sequences, heads, shape);
      cuda_->step_attention(qkv.view.row_range(first, rows), heads,
                            {cos.view.row_range(first, rows), sin.view.row_range(first, rows)}, scale, *step, layer,
                            *pool, out.view);
      expect_untouched(out, 8);
      return back(out.view);
    };
    const auto expect_matches = [&](const Step& in, std::span<const SequenceRows> sequences) {
      Matrix got = run(in, 0, sequences);
      // A rotated value may fall to the other side of a rounding.
      expect_near(got, in.want, 2 * 1.5F * kAttention, 0);  // values up to 2
      return got;
    };
    const std::vector<SequenceRows> prompt{{table, 0, length}};
    expect_matches(input(prompt), prompt);
    const std::vector<SequenceRows> beside{{table, length, 1}, {other_table, 0, other}};
    const Step mixed = input(beside);
    const Matrix in_company = expect_matches(mixed, beside);
    ASSERT_FALSE(HasFailure()) << "a prompt, head size " << head_dim;
    const std::vector<SequenceRows> alone{{table, length, 1}};
    const Matrix by_itself = run(mixed, 0, alone);
    if (can_decode(heads, kv_heads, head_dim)) {
      ASSERT_EQ(std::memcmp(by_itself.row(0), in_company.row(0), static_cast<std::size_t>(heads * head_dim) * 4), 0);
    }
    for (std::int64_t i = 1; i <= steps; ++i) {
      const std::vector<SequenceRows> both{{table, length + i, 1}, {other_table, other + i - 1, 1}};
      const Step in = input(both);
      const Matrix got = expect_matches(in, both);
      ASSERT_FALSE(HasFailure()) << "decode, head size " << head_dim << ", step " << i;
      const std::vector<SequenceRows> second{{other_table, other + i - 1, 1}};
      const Matrix single = run(in, 1, second);
      ASSERT_EQ(std::memcmp(single.row(0), got.row(1), static_cast<std::size_t>(heads * head_dim) * 4), 0);
    }
  }
}

// Sequences that decode over tables that begin alike, in trees: as many as it takes for their ranges to be read
// together on the card (memory_cuda.cpp), beside such as share nothing.
class SharedDecodeCudaTest : public AttentionCudaTest {
 protected:
  struct Sequence {
    std::vector<std::int32_t> table;
    std::int64_t past = 0;
  };
  // As many sequences of each tree as `trees` says: their first `shared` blocks are the same, some leave earlier.
  std::vector<Sequence> plant(std::span<const std::int64_t> trees, std::int64_t shared, std::int64_t longest_tail) {
    std::vector<Sequence> out;
    for (const std::int64_t count : trees) {
      std::vector<std::int32_t> trunk;
      for (std::int64_t b = 0; b < shared; ++b) trunk.push_back(next_block_++);
      for (std::int64_t i = 0; i < count; ++i) {
        Sequence sequence;
        const std::int64_t common = pick(0, 4) > 0 ? shared : pick(0, shared);
        sequence.table.assign(trunk.begin(), trunk.begin() + common);
        sequence.past = common * kKvBlock + pick(0, longest_tail);
        out.push_back(std::move(sequence));
      }
    }
    std::shuffle(out.begin(), out.end(), random_);
    for (Sequence& sequence : out) grow(sequence);
    return out;
  }
  void grow(Sequence& sequence) {
    while (static_cast<std::int64_t>(sequence.table.size()) * kKvBlock <= sequence.past)
      sequence.table.push_back(next_block_++);
  }
  static std::vector<SequenceRows> rows_of(const std::vector<Sequence>& sequences) {
    std::vector<SequenceRows> out;
    for (const Sequence& sequence : sequences) out.push_back({sequence.table, sequence.past, 1});
    return out;
  }

  std::int32_t next_block_ = 0;
};

TEST_F(SharedDecodeCudaTest, MatchesReferenceAndGivesTheBitsOfRowsAlone) {
  for (const auto& [kv_heads, group, head_dim] :
       {std::array<std::int64_t, 3>{2, 6, 128}, {4, 7, 128}, {2, 16, 128}, {5, 3, 64}, {1, 1, 64}}) {
    const std::int64_t heads = kv_heads * group, half = head_dim / 2, width = (heads + 2 * kv_heads) * head_dim;
    // Their seven whole ranges and more are twice what makes sharing pay.
    const std::int64_t many = 12 + 512 / kv_heads / 6;
    const std::array<std::int64_t, 5> trees{many, pick(2, 11), 2, 1, 1};
    next_block_ = 0;
    const std::vector<Sequence> sequences = plant(trees, pick(29, 36), 200);
    const std::vector<SequenceRows> rows = rows_of(sequences);
    const auto count = static_cast<std::int64_t>(sequences.size());
    const KvShape shape{1, kv_heads, head_dim, next_block_};
    const auto ref_pool = *ref_->make_kv_pool(shape), pool = *cuda_->make_kv_pool(shape);
    // All blocks hold something; what stands behind a sequence's keys must not matter.
    std::vector<std::int32_t> everything(static_cast<std::size_t>(next_block_));
    std::iota(everything.begin(), everything.end(), 0);
    const std::vector<SequenceRows> all{{everything, 0, next_block_ * kKvBlock}};
    const Matrix k = rounded(random(all[0].count, kv_heads * head_dim, 2.0F)),
                 v = rounded(random(all[0].count, kv_heads * head_dim));
    ref_->kv_write(k.view(), v.view(), StepRows(all), 0, *ref_pool);
    cuda_->kv_write(on_card(k, DType::kBF16).view, on_card(v, DType::kBF16).view, **cuda_->make_step(all, heads, shape),
                    0, *pool);
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));

    const Matrix q = rounded(random(count, heads * head_dim, 2.0F));
    Matrix want(count, q.cols());
    ref_->paged_attention(q.view(), heads, scale, StepRows(rows), 0, *ref_pool, want.view());
    const OnCard on_q = on_card(q, DType::kBF16), out = poisoned(count, q.cols(), DType::kBF16, 8);
    cuda_->paged_attention(on_q.view, heads, scale, **cuda_->make_step(rows, heads, shape), 0, *pool, out.view);
    expect_untouched(out, 8);
    const Matrix got = back(out.view);
    expect_near(got, want, kAttention, 0);
    ASSERT_FALSE(HasFailure()) << "head size " << head_dim;

    // Each alone, which shares nothing.
    const auto bytes = static_cast<std::size_t>(heads * head_dim) * sizeof(float);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::vector<SequenceRows> own{rows[static_cast<std::size_t>(i)]};
      const OnCard single = poisoned(1, q.cols(), DType::kBF16);
      cuda_->paged_attention(on_q.view.row_range(i, 1), heads, scale, **cuda_->make_step(own, heads, shape), 0, *pool,
                             single.view);
      ASSERT_EQ(std::memcmp(back(single.view).row(0), got.row(i), bytes), 0) << "row " << i;
    }

    // With rotation and the new keys and values: the same input for all ways of asking.
    const OnCard qkv = on_card(rounded(random(count, width, 2.0F)), DType::kBF16);
    const Matrix angles = random(count, half, 3.0F);
    Matrix cos(count, half), sin(count, half);
    for (std::int64_t i = 0; i < angles.size(); ++i)
      cos.data()[i] = std::cos(angles.data()[i]), sin.data()[i] = std::sin(angles.data()[i]);
    const OnCard on_cos = on_card(cos, DType::kF32), on_sin = on_card(sin, DType::kF32);
    const auto turned = [&](std::int64_t first, std::span<const SequenceRows> part) {
      const auto part_rows = static_cast<std::int64_t>(part.size());
      const OnCard to = poisoned(part_rows, q.cols(), DType::kBF16, 8);
      cuda_->step_attention(qkv.view.row_range(first, part_rows), heads,
                            {on_cos.view.row_range(first, part_rows), on_sin.view.row_range(first, part_rows)}, scale,
                            **cuda_->make_step(part, heads, shape), 0, *pool, to.view);
      expect_untouched(to, 8);
      return back(to.view);
    };
    const Matrix together = turned(0, rows);
    // The first half of the sequences, which other groups are found among; then each alone, which shares nothing.
    const std::vector<SequenceRows> half_of(rows.begin(), rows.begin() + count / 2);
    const Matrix fewer = turned(0, half_of);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::vector<SequenceRows> own{rows[static_cast<std::size_t>(i)]};
      ASSERT_EQ(std::memcmp(turned(i, own).row(0), together.row(i), bytes), 0) << "row " << i << " of step_attention";
      if (i < fewer.rows()) {
        ASSERT_EQ(std::memcmp(fewer.row(i), together.row(i), bytes), 0) << "row " << i << " in other company";
      }
    }
  }
}

// One recording while sequences grow, lose and find others that share their beginning: the lists change, and now and
// then the recording.
TEST_F(SharedDecodeCudaTest, RecordingsFollowGroupsThatChange) {
  const std::int64_t kv_heads = 2, heads = 12, head_dim = 128, half = head_dim / 2, count = 40;
  const std::int64_t width = (heads + 2 * kv_heads) * head_dim;
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  const KvShape shape{1, kv_heads, head_dim, 6000};
  const auto pool = *cuda_->make_kv_pool(shape);
  {
    std::vector<std::int32_t> blocks(512);
    std::iota(blocks.begin(), blocks.end(), 0);
    const std::vector<SequenceRows> all{{blocks, 0, 512 * kKvBlock}};
    cuda_->kv_write(on_card(rounded(random(all[0].count, kv_heads * head_dim, 2.0F)), DType::kBF16).view,
                    on_card(rounded(random(all[0].count, kv_heads * head_dim)), DType::kBF16).view,
                    **cuda_->make_step(all, heads, shape), 0, *pool);
  }
  std::vector<std::int32_t> axis(static_cast<std::size_t>(half), 0);
  std::vector<float> frequency(static_cast<std::size_t>(half), 0.5F);
  const OnCard qkv = poisoned(count, width, DType::kBF16), cos = poisoned(count, half, DType::kF32),
               sin = poisoned(count, half, DType::kF32), out = poisoned(count, heads * head_dim, DType::kBF16, 8);
  std::unique_ptr<const StepRows> step;
  std::unique_ptr<const Recording> recording;
  std::vector<Sequence> sequences;
  int held = 0;
  for (int replay = 0; replay < 24; ++replay) {
    if (replay % 8 == 0) {
      next_block_ = 0;
      const std::array<std::array<std::int64_t, 3>, 3> trees{{{40, 0, 0}, {17, 20, 3}, {1, 2, 37}}};
      sequences = plant(trees[static_cast<std::size_t>(replay / 8)], pick(28, 36), 130);
    }
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(count), 0);
    const std::array<std::span<const std::int32_t>, 3> positions{ids, ids, ids};
    const std::vector<SequenceRows> rows = rows_of(sequences);
    const auto holds = cuda_->renew_step(rows, {ids, {positions, axis, frequency}}, heads, shape, step);
    ASSERT_TRUE(holds) << holds.error().message;
    held += *holds ? 1 : 0;
    if (!*holds || recording == nullptr) {
      recording = nullptr;
      recording = *cuda_->record(
          [&] { cuda_->step_attention(qkv.view, heads, {cos.view, sin.view}, scale, *step, 0, *pool, out.view); });
    }
    const std::vector<float> poison(static_cast<std::size_t>(count * heads * head_dim),
                                    std::numeric_limits<float>::quiet_NaN());
    cuda_->upload(poison, out.view);
    cuda_->upload(values_of(rounded(random(count, width, 2.0F))), qkv.view);
    cuda_->upload(values_of(random(count, half)), cos.view);
    cuda_->upload(values_of(random(count, half)), sin.view);
    cuda_->replay(*recording);
    expect_untouched(out, 8);
    const Matrix got = back(out.view);
    // One by one, unrecorded: nothing to share. The new keys are stored again.
    for (std::int64_t i = 0; i < count; ++i) {
      const OnCard single = poisoned(1, heads * head_dim, DType::kBF16);
      cuda_->step_attention(qkv.view.row_range(i, 1), heads, {cos.view.row_range(i, 1), sin.view.row_range(i, 1)},
                            scale,
                            **cuda_->make_step(std::span(rows).subspan(static_cast<std::size_t>(i), 1), heads, shape),
                            0, *pool, single.view);
      ASSERT_EQ(std::memcmp(back(single.view).row(0), got.row(i), static_cast<std::size_t>(got.cols()) * 4), 0)
          << "replay " << replay << ", row " << i;
    }
    for (Sequence& sequence : sequences) sequence.past += pick(0, 40), grow(sequence);
  }
  EXPECT_GE(held, 8);  // not every step made a new recording
}

// More keys than the most ranges of the smallest size.
TEST_F(AttentionCudaTest, DecodeOverALongContextMatchesReference) {
  const std::int64_t kv_heads = 1, heads = 3, head_dim = 128, past = 8192 + pick(1, 3000), blocks = 400;
  const KvShape shape{1, kv_heads, head_dim, blocks};
  std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
  for (std::int32_t i = 0; i < blocks; ++i) table[static_cast<std::size_t>(i)] = i;
  std::shuffle(table.begin(), table.end(), random_);
  const auto ref_pool = *ref_->make_kv_pool(shape), pool = *cuda_->make_kv_pool(shape);
  const Matrix k = rounded(random(past + 1, head_dim, 2.0F)), v = rounded(random(past + 1, head_dim)),
               q = rounded(random(1, heads * head_dim, 2.0F));
  const std::vector<SequenceRows> all{{table, 0, past + 1}}, last{{table, past, 1}};
  ref_->kv_write(k.view(), v.view(), StepRows(all), 0, *ref_pool);
  cuda_->kv_write(on_card(k, DType::kBF16).view, on_card(v, DType::kBF16).view, **cuda_->make_step(all, heads, shape),
                  0, *pool);
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  Matrix want(1, heads * head_dim);
  ref_->paged_attention(q.view(), heads, scale, StepRows(last), 0, *ref_pool, want.view());
  const OnCard out = poisoned(1, heads * head_dim, DType::kBF16);
  cuda_->paged_attention(on_card(q, DType::kBF16).view, heads, scale, **cuda_->make_step(last, heads, shape), 0, *pool,
                         out.view);
  expect_near(back(out.view), want, kAttention, 0);
}

}  // namespace
}  // namespace chiasm
