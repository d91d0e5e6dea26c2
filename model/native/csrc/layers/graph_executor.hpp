// Runs many steps in one call, forward or backward.  The structures are mirrored field by field in library.py.
#pragma once

#include "layer.hpp"

#include <vector>

namespace layers {

enum StepKind : int64_t { kLayer, kAvgPool2, kUpsample2, kConcat, kSelfAttention, kDepthCrossAttention };

struct Step {
  int64_t kind;
  // Numbers of buffers; 0 is none.  `other` is the residual of a layer, the second part of a concatenation, or the
  // depth map of an attention.
  int64_t x, other, y, gain, offset, weight, bias, moments, conv_input;
  int64_t key;    // index of the dropout's key in Run::keys
  int64_t count;  // pixels of a depth map
  Layer layer;    // sizes; the addresses are those of the buffers
};

struct Run {
  int64_t count, threads;
  int64_t buffer_count;
  int64_t largest_map;  // numbers in the largest x, `other` or y
  int64_t output_count;
  const Step* steps;
  float* const* buffers;  // addresses; the first is nullptr
  const uint64_t* keys;
  const int64_t* outputs;  // buffers whose gradients are given to the backward pass
  native::Parallel parallel;
  const native::Interpreter* interpreter;
};

namespace {

// The layer of a step with the addresses of its buffers.
Layer with_addresses(const Run& p, const Step& s) {
  Layer l = s.layer;
  if (l.drop_below) l.key = p.keys[s.key];
  l.x = p.buffers[s.x];
  l.gain = p.buffers[s.gain];
  l.offset = p.buffers[s.offset];
  l.weight = p.buffers[s.weight];
  l.bias = p.buffers[s.bias];
  l.residual = p.buffers[s.other];
  l.moments = p.buffers[s.moments];
  l.conv_input = p.buffers[s.conv_input];
  return l;
}

// Calls attention(image, scratch) for all images; scratch has `size` numbers, for each thread its own.
template <class Attention>
void run_attention(const Layer& l, int64_t size, Team& team, const Attention& attention) {
  const Buffer scratch = allocate(team.threads() * size);
  team.each(l.images, [&](int64_t n, int member) { attention(n, scratch.get() + member * size); });
}

void run_step(const Run& p, const Step& s, Team& team) {
  const Layer l = with_addresses(p, s);
  const PerImageOps& ops = available_kernels(l.kernels)->ops;
  float* y = p.buffers[s.y];
  const auto images = [&](const auto& task) { team.each(l.images, [&](int64_t n, int) { task(n); }); };
  switch (s.kind) {
    case kLayer: return run_forward(l, team, y);
    case kAvgPool2: return images([&](int64_t n) { ops.avg_pool2(l, n, y); });
    case kUpsample2: return images([&](int64_t n) { ops.upsample2(l, n, y); });
    case kConcat: return images([&](int64_t n) { ops.concat(l, n, p.buffers[s.other], y); });
    case kSelfAttention:
      return run_attention(l, ops.attention_scratch(l), team,
                             [&](int64_t n, float* scratch) { ops.self_attention(l, n, scratch, y); });
    case kDepthCrossAttention:
      return run_attention(l, s.count, team, [&](int64_t n, float* z) {
        ops.depth_cross_attention(l, n, s.count, p.buffers[s.other], z, y);
      });
  }
}

// Runs the steps in reverse.  A tensor that several steps read gets the sum of their gradients: the first step writes
// it, the others add to it.
class Backward {
 public:
  Backward(const Run& p, float* const* gradients, Team& team)
      : p_(p), gradients_(gradients), team_(team), written_((size_t)p.buffer_count),
        scratch_(allocate(2 * p.largest_map)) {
    for (int64_t i = 0; i < p.output_count; ++i) written_[(size_t)p.outputs[i]] = true;
  }

  void run(const Step& s) {
    const Layer l = with_addresses(p_, s);
    const PerImageOps& ops = available_kernels(l.kernels)->ops;
    const float* grad_y = gradients_[s.y];
    const auto images = [&](const auto& task) { team_.each(l.images, [&](int64_t n, int) { task(n); }); };
    if (s.kind == kLayer) return layer(s, l);
    float* grad_x = gradients_[s.x];
    const bool add = mark_written(s.x);
    if (s.kind == kAvgPool2) images([&](int64_t n) { ops.avg_pool2_backward(l, n, grad_y, grad_x, add); });
    else if (s.kind == kUpsample2) images([&](int64_t n) { ops.upsample2_backward(l, n, grad_y, grad_x, add); });
    else if (s.kind == kSelfAttention) self_attention(s, l, add);
    else if (s.kind == kDepthCrossAttention) depth_cross_attention(s, l, add);
    else {
      const int64_t rest = l.outputs - l.inputs;
      images([&](int64_t n) { ops.split_backward(l, n, grad_y, 0, l.inputs, grad_x, add); });
      const bool add_other = mark_written(s.other);
      images([&](int64_t n) { ops.split_backward(l, n, grad_y, l.inputs, rest, gradients_[s.other], add_other); });
    }
  }

 private:
  // Whether the gradient of this buffer has been written; marks it as written.
  bool mark_written(int64_t buffer) {
    const bool before = written_[(size_t)buffer];
    written_[(size_t)buffer] = true;
    return before;
  }

  // The gradient of a parameter of `size` numbers.  If another step has written it, this step's is computed in a
  // separate buffer, which the destructor adds.
  class ParameterGradient {
   public:
    ParameterGradient(Backward& all, int64_t buffer, int64_t size) : size_(size), to_(all.gradients_[buffer]) {
      if (!to_ || !all.mark_written(buffer)) return;
      apart_ = allocate(size);
      sum_ = to_;
      to_ = apart_.get();
    }
    ~ParameterGradient() {
      for (int64_t i = 0; sum_ && i < size_; ++i) sum_[i] += to_[i];
    }
    ParameterGradient(const ParameterGradient&) = delete;
    ParameterGradient& operator=(const ParameterGradient&) = delete;
    float* get() const { return to_; }

   private:
    const int64_t size_;
    float *to_, *sum_ = nullptr;
    Buffer apart_;
  };

  void layer(const Step& s, const Layer& l) {
    const bool add_x = mark_written(s.x), add_residual = s.other && mark_written(s.other);
    const ParameterGradient gain(*this, s.gain, l.inputs), offset(*this, s.offset, l.inputs);
    const ParameterGradient weight(*this, s.weight, l.side * l.side * l.inputs * l.outputs);
    const ParameterGradient bias(*this, s.bias, l.outputs);
    Gradients g{gradients_[s.y], gradients_[s.x], gain.get(), offset.get(),
                weight.get(),    bias.get(),      gradients_[s.other]};
    if (add_x) g.grad_x = scratch_.get();
    if (add_residual) g.grad_residual = scratch_.get() + p_.largest_map;
    run_backward(l, g, team_);
    if (add_x) accumulate(l, l.inputs, g.grad_x, gradients_[s.x]);
    if (add_residual) accumulate(l, l.outputs, g.grad_residual, gradients_[s.other]);
  }

  void self_attention(const Step& s, const Layer& l, bool add) {
    const PerImageOps& ops = available_kernels(l.kernels)->ops;
    float* grad_x = add ? scratch_.get() : gradients_[s.x];
    run_attention(l, ops.attention_scratch(l), team_, [&](int64_t n, float* scratch) {
      ops.self_attention_backward(l, n, scratch, gradients_[s.y], grad_x);
    });
    if (add) accumulate(l, l.inputs, grad_x, gradients_[s.x]);
  }

  void depth_cross_attention(const Step& s, const Layer& l, bool add) {
    const PerImageOps& ops = available_kernels(l.kernels)->ops;
    const int64_t size = ops.depth_cross_attention_partials(l), weights = 2 * l.inputs;
    const Buffer partials = allocate(l.images * size);
    team_.each(l.images, [&](int64_t n, int) {
      ops.depth_cross_attention_backward(l, n, gradients_[s.y], gradients_[s.x], add, partials.get());
    });
    const ParameterGradient weight(*this, s.weight, weights), bias(*this, s.bias, weights);
    const ParameterGradient gain(*this, s.gain, 1), offset(*this, s.offset, 1);
    sum_partials(partials.get(), l.images, size, weights, weight.get());
    sum_partials(partials.get() + weights, l.images, size, weights, bias.get());
    sum_partials(partials.get() + 2 * weights, l.images, size, 1, gain.get());
    sum_partials(partials.get() + 2 * weights + 1, l.images, size, 1, offset.get());
  }

  void accumulate(const Layer& l, int64_t channels, const float* from, float* to) {
    const PerImageOps& ops = available_kernels(l.kernels)->ops;
    const int64_t size = l.height * l.width * channels;
    team_.each(l.images, [&](int64_t n, int) { ops.accumulate(n, size, from, to); });
  }

  const Run& p_;
  float* const* gradients_;
  Team& team_;
  std::vector<bool> written_;
  Buffer scratch_;
};

native::Status forward(const Run& p) {
  native::Progress progress(p.interpreter);
  Team team(progress, p.parallel, (int)p.threads);
  try {
    for (int64_t i = 0; i < p.count && progress.ok(); ++i) run_step(p, p.steps[i], team);
  } catch (const std::bad_alloc&) {
    progress.fail(native::kOutOfMemory);
  }
  return progress.status();
}

native::Status backward(const Run& p, float* const* gradients) {
  native::Progress progress(p.interpreter);
  Team team(progress, p.parallel, (int)p.threads);
  try {
    Backward backward(p, gradients, team);
    for (int64_t i = p.count - 1; i >= 0 && progress.ok(); --i) backward.run(p.steps[i]);
  } catch (const std::bad_alloc&) {
    progress.fail(native::kOutOfMemory);
  }
  return progress.status();
}

}  // namespace
}  // namespace layers
