#include "models/qwen2_vl/vision.h"

#include <cmath>
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
  static Result<std::unique_ptr<const VisionModel>> load(const Checkpoint& checkpoint, const Ops& ops) {
    auto model = std::make_unique<Qwen2VlVision>(ops, checkpoint.config().vision);
    RETURN_IF_ERROR(model->load_weights(checkpoint));
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
    const auto show = [&](const std::string& stage, ConstMatrixView value) {
      if (probe) probe(stage, value);
    };
    ASSIGN_OR_RETURN(const RotaryTable rotary, rotary_table(patches, grids));
    const std::vector<std::int64_t> cu_seqlens = segments(grids);
    ASSIGN_OR_RETURN(Matrix x, ops_.allocate(patches, config_.embed_dim));
    ops_.matmul(pixel_values, *patch_embed_.weight, patch_embed_.epilogue(), x.view());
    show("patch_embed", x.view());
    {
      ASSIGN_OR_RETURN(Scratch scratch, make_scratch(patches));
      for (std::size_t i = 0; i < blocks_.size(); ++i) {
        attend(blocks_[i], rotary.view(), cu_seqlens, scratch, x.view());
        transform(blocks_[i], scratch, x.view());
        show("block." + std::to_string(i), x.view());
      }
    }
    ASSIGN_OR_RETURN(Matrix features, merge(x.view()));
    show("image_embeds", features.view());
    return features;
  }

 private:
  // Reused by every block.
  struct Scratch {
    Matrix normed;    // [piece, embed_dim]
    Matrix qkv;       // [patches, 3 * embed_dim]
    Matrix attended;  // [patches, embed_dim]
    Matrix hidden;    // [piece, mlp_ratio * embed_dim]
  };

  Status load_weights(const Checkpoint& checkpoint) {
    ASSIGN_OR_RETURN(activation_, activation_of(config_.hidden_act));
    if (config_.head_dim() % 4 != 0) {
      return fail(Code::kUnimplemented, "vision head size: expected a multiple of 4, got {}", config_.head_dim());
    }
    WeightLoader loader(checkpoint, ops_);
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
  static std::vector<std::int64_t> segments(std::span<const Grid> grids) {
    std::vector<std::int64_t> cu_seqlens{0};
    for (const Grid& grid : grids) {
      for (std::int64_t t = 0; t < grid.t; ++t) cu_seqlens.push_back(cu_seqlens.back() + grid.h * grid.w);
    }
    return cu_seqlens;
  }

  // The first half of a head's angles turns with the patch's row, the second with its column.
  Result<RotaryTable> rotary_table(std::int64_t patches, std::span<const Grid> grids) const {
    std::vector<PatchPosition> positions;
    positions.reserve(static_cast<std::size_t>(patches));
    for (const Grid& grid : grids) {
      const auto more = patch_positions(grid, config_.spatial_merge_size);
      positions.insert(positions.end(), more.begin(), more.end());
    }
    const std::int64_t pairs = config_.head_dim() / 2, axis = pairs / 2;
    const std::vector<float> frequencies = inverse_frequencies(kRopeTheta, pairs);
    return make_rotary_table(ops_, patches, pairs, [&](std::int64_t row, std::int64_t pair) {
      const PatchPosition& at = positions[static_cast<std::size_t>(row)];
      const std::int32_t position = pair < axis ? at.row : at.col;
      return static_cast<float>(position) * frequencies[static_cast<std::size_t>(pair % axis)];
    });
  }

  Result<Scratch> make_scratch(std::int64_t patches) const {
    const std::int64_t width = config_.embed_dim, piece = std::min(patches, kPiece);
    Scratch scratch;
    ASSIGN_OR_RETURN(scratch.normed, ops_.allocate(piece, width));
    ASSIGN_OR_RETURN(scratch.qkv, ops_.allocate(patches, 3 * width));
    ASSIGN_OR_RETURN(scratch.attended, ops_.allocate(patches, width));
    ASSIGN_OR_RETURN(scratch.hidden, ops_.allocate(piece, width * config_.mlp_ratio));
    return scratch;
  }

  // x += proj(attention(norm1(x)))
  void attend(const Block& block, const RopeTable& rotary, std::span<const std::int64_t> cu_seqlens, Scratch& scratch,
              MatrixView x) const {
    const std::int64_t width = config_.embed_dim;
    const MatrixView qkv = scratch.qkv.view();
    in_pieces(x.rows, kPiece, [&](std::int64_t begin, std::int64_t count) {
      const MatrixView normed = scratch.normed.view().row_range(0, count);
      ops_.layer_norm(x.row_range(begin, count), block.norm1.weight.data(), block.norm1.bias.data(), kNormEps, normed);
      ops_.matmul(normed, *block.qkv.weight, block.qkv.epilogue(), qkv.row_range(begin, count));
    });
    const MatrixView q = qkv.col_range(0, width), k = qkv.col_range(width, width), v = qkv.col_range(2 * width, width);
    ops_.rope(q, config_.num_heads, rotary);
    ops_.rope(k, config_.num_heads, rotary);
    const float scale = 1 / std::sqrt(static_cast<float>(config_.head_dim()));
    ops_.attention(q, k, v, config_.num_heads, scale, cu_seqlens, scratch.attended.view());
    ops_.matmul(scratch.attended.view(), *block.proj.weight, block.proj.epilogue(Activation::kNone, true), x);
  }

  // x += fc2(act(fc1(norm2(x))))
  void transform(const Block& block, Scratch& scratch, MatrixView x) const {
    in_pieces(x.rows, kPiece, [&](std::int64_t begin, std::int64_t count) {
      const MatrixView rows = x.row_range(begin, count);
      const MatrixView normed = scratch.normed.view().row_range(0, count);
      const MatrixView hidden = scratch.hidden.view().row_range(0, count);
      ops_.layer_norm(rows, block.norm2.weight.data(), block.norm2.bias.data(), kNormEps, normed);
      ops_.matmul(normed, *block.fc1.weight, block.fc1.epilogue(activation_), hidden);
      ops_.matmul(hidden, *block.fc2.weight, block.fc2.epilogue(Activation::kNone, true), rows);
    });
  }

  // The patches of each merge block side by side, through the merger's two layers: one feature row.
  Result<Matrix> merge(ConstMatrixView x) const {
    const std::int64_t unit = config_.merge_unit(), rows = x.rows / unit, merged = unit * config_.embed_dim;
    const std::int64_t piece = std::min(rows, std::max<std::int64_t>(1, kPiece / unit));
    ASSIGN_OR_RETURN(Matrix features, ops_.allocate(rows, config_.hidden_size));
    ASSIGN_OR_RETURN(Matrix normed, ops_.allocate(piece * unit, config_.embed_dim));
    ASSIGN_OR_RETURN(Matrix hidden, ops_.allocate(piece, merged));
    in_pieces(rows, piece, [&](std::int64_t begin, std::int64_t count) {
      ops_.layer_norm(x.row_range(begin * unit, count * unit), ln_q_.weight.data(), ln_q_.bias.data(), kNormEps,
                      normed.view().row_range(0, count * unit));
      const ConstMatrixView blocks{normed.data(), count, merged, merged};
      const MatrixView wide = hidden.view().row_range(0, count);
      ops_.matmul(blocks, *merger0_.weight, merger0_.epilogue(Activation::kGelu), wide);
      ops_.matmul(wide, *merger2_.weight, merger2_.epilogue(), features.view().row_range(begin, count));
    });
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

Result<std::unique_ptr<const VisionModel>> load_qwen2_vl_vision(const Checkpoint& checkpoint, const Ops& ops) {
  return Qwen2VlVision::load(checkpoint, ops);
}

}  // namespace chiasm
