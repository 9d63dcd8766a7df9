#include "models/qwen2_vl/vision.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "models/qwen2_vl/layout.h"
#include "models/qwen2_vl/rotary.h"
#include "models/qwen2_vl/weights.h"

namespace chiasm {
namespace {

constexpr float kNormEps = 1e-6F;
constexpr double kRopeTheta = 10000;
constexpr std::int64_t kPiece = 1024;  // rows of the MLP at a time; its hidden values are mlp_ratio times as wide

using Linear = std::unique_ptr<const Weight>;

struct Block {
  Norm norm1, norm2;
  Linear qkv, proj, fc1, fc2;
};

Result<Activation> activation_of(const std::string& hidden_act) {
  if (hidden_act == "quick_gelu") return Activation::kQuickGelu;
  if (hidden_act == "gelu") return Activation::kGelu;
  return fail(Code::kUnimplemented, "vision_config.hidden_act: expected 'quick_gelu' or 'gelu', got '{}'", hidden_act);
}

class Qwen2VlVision final : public VisionModel {
 public:
  static Result<std::unique_ptr<const VisionModel>> load(const Checkpoint& checkpoint, const Ops& ops,
                                                         std::optional<Precision> precision, const WeightCache* cache) {
    auto model = std::make_unique<Qwen2VlVision>(ops, checkpoint.config().vision);
    ASSIGN_OR_RETURN(const Precision chosen, checkpoint.precision(Role::kVision, precision));
    RETURN_IF_ERROR(model->load_weights(checkpoint, chosen, cache));
    return model;
  }

  Qwen2VlVision(const Ops& ops, const VisionConfig& config) : ops_(ops), config_(config) {}

  const VisionConfig& config() const override { return config_; }
  std::uint64_t weight_bytes() const override { return weight_bytes_; }

  Result<Matrix> encode(ConstMatrixView pixel_values, std::span<const Grid> grids) const override {
    return encode(pixel_values, grids, nullptr);
  }

  Result<Matrix> encode(ConstMatrixView pixel_values, std::span<const Grid> grids, const Probe& probe) const override {
    RETURN_IF_ERROR(check_input(pixel_values, grids));
    const std::int64_t patches = pixel_values.rows;
    // Before the pixels, so that a device has nothing to wait for once it has them.
    ASSIGN_OR_RETURN(const RotaryTable rotary, rotary_table(patches, grids));
    ASSIGN_OR_RETURN(const auto segments, ops_.make_segments(cu_seqlens(grids)));
    ASSIGN_OR_RETURN(Buffer x, ops_.allocate(patches, config_.embed_dim));
    {
      ASSIGN_OR_RETURN(const Ops::Operand values, ops_.bring(pixel_values));
      ops_.matmul(values.view, *patch_embed_, {.steady = true}, x.view());
    }
    RETURN_IF_ERROR(show_stage(ops_, probe, "patch_embed", x.view()));
    {
      ASSIGN_OR_RETURN(Scratch scratch, make_scratch(patches));
      for (std::size_t i = 0; i < blocks_.size(); ++i) {
        attend(blocks_[i], rotary.view(), *segments, scratch, x.view());
        transform(blocks_[i], scratch, x.view());
        RETURN_IF_ERROR(show_stage(ops_, probe, "block." + std::to_string(i), x.view()));
      }
    }
    ASSIGN_OR_RETURN(Matrix features, merge(x.view()));
    if (probe) probe("image_embeds", features.view());
    return features;
  }

 private:
  // Reused by every block.
  struct Scratch {
    Buffer normed;  // [patches, embed_dim]; what attention gives, too: it is needed when the normed rows are not
    Buffer qkv;     // [patches, 3 * embed_dim]
    Buffer hidden;  // [piece, mlp_ratio * embed_dim]
  };

  Status load_weights(const Checkpoint& checkpoint, Precision precision, const WeightCache* cache) {
    ASSIGN_OR_RETURN(activation_, activation_of(config_.hidden_act));
    if (config_.head_dim() % 4 != 0) {
      return fail(Code::kUnimplemented, "vision head size: expected a multiple of 4, got {}", config_.head_dim());
    }
    WeightLoader loader(checkpoint, ops_, Role::kVision, precision, cache);
    const std::int64_t width = config_.embed_dim, hidden = width * config_.mlp_ratio;
    ASSIGN_OR_RETURN(patch_embed_, loader.linear("visual.patch_embed.proj", width, config_.patch_width(), false));
    for (std::int64_t i = 0; i < config_.depth; ++i) {
      const std::string prefix = "visual.blocks." + std::to_string(i) + ".";
      Block block;
      ASSIGN_OR_RETURN(block.norm1, loader.norm(prefix + "norm1", width, true));
      ASSIGN_OR_RETURN(block.qkv, loader.linear(prefix + "attn.qkv", 3 * width, width, true));
      ASSIGN_OR_RETURN(block.proj, loader.linear(prefix + "attn.proj", width, width, true));
      ASSIGN_OR_RETURN(block.norm2, loader.norm(prefix + "norm2", width, true));
      ASSIGN_OR_RETURN(block.fc1, loader.linear(prefix + "mlp.fc1", hidden, width, true));
      ASSIGN_OR_RETURN(block.fc2, loader.linear(prefix + "mlp.fc2", width, hidden, true));
      blocks_.push_back(std::move(block));
    }
    const std::int64_t merged = width * config_.merge_unit();
    ASSIGN_OR_RETURN(ln_q_, loader.norm("visual.merger.ln_q", width, true));
    ASSIGN_OR_RETURN(merger0_, loader.linear("visual.merger.mlp.0", merged, merged, true));
    ASSIGN_OR_RETURN(merger2_, loader.linear("visual.merger.mlp.2", config_.hidden_size, merged, true));
    loader.finish();
    weight_bytes_ = loader.bytes();
    return {};
  }

  Status check_input(ConstMatrixView pixel_values, std::span<const Grid> grids) const {
    if (pixel_values.cols != config_.patch_width()) {
      return fail(Code::kInvalidArgument, "pixel_values: expected rows of {} values, got {}", config_.patch_width(),
                  pixel_values.cols);
    }
    const std::int64_t m = config_.spatial_merge_size;
    std::int64_t patches = 0;
    for (const Grid& grid : grids) {
      const auto count = element_count({grid.t, grid.h, grid.w});
      if (!count || *count < 1 || grid.h % m != 0 || grid.w % m != 0) {
        return fail(Code::kInvalidArgument,
                    "grid_thw: expected positive sides, height and width multiples of {}, got [{}, {}, {}]", m, grid.t,
                    grid.h, grid.w);
      }
      if (*count > pixel_values.rows - patches) {
        return fail(Code::kInvalidArgument, "grid_thw: more patches than the {} rows of pixel_values",
                    pixel_values.rows);
      }
      patches += *count;
    }
    if (patches == 0 || patches != pixel_values.rows) {
      return fail(Code::kInvalidArgument, "grid_thw: expected the {} rows of pixel_values (1 or more), got {} patches",
                  pixel_values.rows, patches);
    }
    return {};
  }

  // Each frame group of each picture or video attends to itself only.
  static std::vector<std::int64_t> cu_seqlens(std::span<const Grid> grids) {
    std::vector<std::int64_t> out{0};
    for (const Grid& grid : grids) {
      for (std::int64_t t = 0; t < grid.t; ++t) out.push_back(out.back() + grid.h * grid.w);
    }
    return out;
  }

  // The first half of a head's angles turns with the patch's row, the second with its column.
  Result<RotaryTable> rotary_table(std::int64_t patches, std::span<const Grid> grids) const {
    std::vector<std::int32_t> rows(static_cast<std::size_t>(patches)), cols(static_cast<std::size_t>(patches));
    std::size_t patch = 0;
    for (const Grid& grid : grids)
      for (const PatchPosition& at : patch_positions(grid, config_.spatial_merge_size))
        rows[patch] = at.row, cols[patch++] = at.col;
    const std::int64_t pairs = config_.head_dim() / 2, half = pairs / 2;
    std::vector<float> frequencies = inverse_frequencies(kRopeTheta, pairs);
    std::vector<std::int32_t> axis(static_cast<std::size_t>(half), 0);
    axis.resize(static_cast<std::size_t>(pairs), 1);
    frequencies.resize(static_cast<std::size_t>(half));
    frequencies.insert(frequencies.end(), frequencies.begin(), frequencies.begin() + half);
    const std::array<std::span<const std::int32_t>, 2> positions{rows, cols};
    return make_rotary_table(ops_, patches, {positions, axis, frequencies});
  }

  // Rows of a piece that wide intermediate values are cut into.
  std::int64_t piece() const { return std::max(kPiece, ops_.filling_rows()); }

  Result<Scratch> make_scratch(std::int64_t patches) const {
    const std::int64_t width = config_.embed_dim, rows = std::min(patches, piece());
    const DType dtype = ops_.activations();
    Scratch scratch;
    ASSIGN_OR_RETURN(scratch.normed, ops_.allocate(patches, width, dtype));
    ASSIGN_OR_RETURN(scratch.qkv, ops_.allocate(patches, 3 * width, dtype));
    ASSIGN_OR_RETURN(scratch.hidden, ops_.allocate(rows, width * config_.mlp_ratio, dtype));
    return scratch;
  }

  // x += proj(attention(norm1(x)))
  void attend(const Block& block, const RopeTable& rotary, const Segments& segments, Scratch& scratch, View x) const {
    const View qkv = scratch.qkv.view(), attended = scratch.normed.view();
    in_pieces(x.rows, piece(), [&](std::int64_t begin, std::int64_t count) {
      const View normed = scratch.normed.view().row_range(0, count);
      ops_.layer_norm(x.row_range(begin, count), block.norm1.weight.f32(), block.norm1.bias.f32(), kNormEps, normed);
      const RopeTable angles{rotary.cos.row_range(begin, count), rotary.sin.row_range(begin, count)};
      ops_.rope_matmul(normed, *block.qkv, {.steady = true}, config_.num_heads, angles, qkv.row_range(begin, count));
    });
    const std::int64_t width = config_.embed_dim;
    const float scale = 1 / std::sqrt(static_cast<float>(config_.head_dim()));
    ops_.attention(qkv.col_range(0, width), qkv.col_range(width, width), qkv.col_range(2 * width, width),
                   config_.num_heads, scale, segments, attended);
    ops_.matmul(attended, *block.proj, {.add_to_out = true, .steady = true}, x);
  }

  // x += fc2(act(fc1(norm2(x))))
  void transform(const Block& block, Scratch& scratch, View x) const {
    in_pieces(x.rows, piece(), [&](std::int64_t begin, std::int64_t count) {
      const View rows = x.row_range(begin, count);
      const View normed = scratch.normed.view().row_range(0, count);
      const View hidden = scratch.hidden.view().row_range(0, count);
      ops_.layer_norm(rows, block.norm2.weight.f32(), block.norm2.bias.f32(), kNormEps, normed);
      ops_.matmul(normed, *block.fc1, {.activation = activation_, .steady = true}, hidden);
      ops_.matmul(hidden, *block.fc2, {.add_to_out = true, .steady = true}, rows);
    });
  }

  // The patches of each merge block side by side, through the merger's two layers: one feature row.
  Result<Matrix> merge(ConstView x) const {
    const std::int64_t unit = config_.merge_unit(), rows = x.rows / unit, merged = unit * config_.embed_dim;
    const std::int64_t most = std::min(rows, std::max<std::int64_t>(1, piece() / unit));
    const DType dtype = ops_.activations();
    ASSIGN_OR_RETURN(Matrix features, Matrix::create(rows, config_.hidden_size));
    // The system gives pages when they are first touched: now, while a device still computes.
    std::fill_n(features.data(), features.size(), 0.0F);
    ASSIGN_OR_RETURN(Buffer normed, ops_.allocate(most * unit, config_.embed_dim, dtype));
    ASSIGN_OR_RETURN(Buffer hidden, ops_.allocate(most, merged, dtype));
    ASSIGN_OR_RETURN(Buffer out, ops_.allocate(most, config_.hidden_size));
    for (std::int64_t begin = 0; begin < rows; begin += most) {
      const std::int64_t count = std::min(most, rows - begin);
      ops_.layer_norm(x.row_range(begin * unit, count * unit), ln_q_.weight.f32(), ln_q_.bias.f32(), kNormEps,
                      normed.view().row_range(0, count * unit));
      const ConstView blocks{std::as_const(normed).view().data, count, merged, merged, dtype};
      const View wide = hidden.view().row_range(0, count), some = out.view().row_range(0, count);
      ops_.matmul(blocks, *merger0_, {.activation = Activation::kGelu, .steady = true}, wide);
      ops_.matmul(wide, *merger2_, {.steady = true}, some);
      RETURN_IF_ERROR(
          ops_.download(some, {features.row(begin), static_cast<std::size_t>(count * config_.hidden_size)}));
    }
    return features;
  }

  const Ops& ops_;
  VisionConfig config_;
  Activation activation_ = Activation::kNone;
  Linear patch_embed_;
  std::vector<Block> blocks_;
  Norm ln_q_;
  Linear merger0_, merger2_;
  std::uint64_t weight_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<const VisionModel>> load_qwen2_vl_vision(const Checkpoint& checkpoint, const Ops& ops,
                                                                std::optional<Precision> precision,
                                                                const WeightCache* cache) {
  return Qwen2VlVision::load(checkpoint, ops, precision, cache);
}

}  // namespace chiasm
