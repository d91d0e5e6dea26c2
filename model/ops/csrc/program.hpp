// Many steps in one call: layers, and what stands between them.  Mirrored field by field in native.py.
#pragma once

#include "layer.hpp"

#include <vector>

namespace layer {

enum Kind : int64_t { kLayer, kHalve, kRepeat, kJoin, kAttend, kRead };

struct Step {
  int64_t kind;
  // Numbers of buffers; 0 is none.  `other` is the residual of a layer, the second part of a join, what is read.
  int64_t x, other, y, gain, offset, weight, bias, moments, active;
  int64_t key;   // of a layer's dropout: which of Run::keys
  int64_t count; // of numbers that are read, an image
  Layer layer;   // its sizes; the addresses are those of the buffers
};

struct Run {
  int64_t count, threads;
  int64_t buffer_count;
  int64_t largest_map;  // numbers in the largest x, `other` or y
  const Step* steps;
  float* const* buffers;  // the addresses; the first is nullptr
  const uint64_t* keys;
};

namespace {

Layer complete(const Run& p, const Step& s) {
  Layer l = s.layer;
  l.threads = p.threads;
  if (l.drop_below) l.key = p.keys[s.key];
  l.x = p.buffers[s.x];
  l.gain = p.buffers[s.gain];
  l.offset = p.buffers[s.offset];
  l.weight = p.buffers[s.weight];
  l.bias = p.buffers[s.bias];
  l.residual = p.buffers[s.other];
  l.moments = p.buffers[s.moments];
  l.active = p.buffers[s.active];
  return l;
}

// Calls attend(image, its scratch of `size` numbers) for all images.
template <class Attend>
void share_attention(const Layer& l, int64_t size, Parallel parallel, const Attend& attend) {
  const bool alone = l.threads == 1 || !parallel;
  const Buffer scratch = allocate(alone ? size : l.images * size);
  share(l.images, l.threads, parallel, [&](int64_t n) { attend(n, scratch.get() + (alone ? 0 : n * size)); });
}

void run_step(const Run& p, const Step& s, Parallel parallel) {
  const Layer l = complete(p, s);
  const Between& k = available_kernels(l.kernels)->between;
  float* y = p.buffers[s.y];
  const auto images = [&](const auto& task) { share(l.images, l.threads, parallel, task); };
  switch (s.kind) {
    case kLayer: return run_forward(l, parallel, y);
    case kHalve: return images([&](int64_t n) { k.halve(l, n, y); });
    case kRepeat: return images([&](int64_t n) { k.repeat(l, n, y); });
    case kJoin: return images([&](int64_t n) { k.join(l, n, p.buffers[s.other], y); });
    case kAttend:
      return share_attention(l, k.attention_scratch(l), parallel,
                             [&](int64_t n, float* scratch) { k.attend(l, n, scratch, y); });
    case kRead:
      return share_attention(l, s.count, parallel,
                             [&](int64_t n, float* z) { k.read(l, n, s.count, p.buffers[s.other], z, y); });
  }
}

// The steps in reverse.  What several steps read has the sum of their gradients: the first to come writes it, the
// others add.
class Backward {
 public:
  Backward(const Run& p, float* const* gradients, Parallel parallel)
      : p_(p), gradients_(gradients), parallel_(parallel), written_((size_t)p.buffer_count),
        scratch_(allocate(2 * p.largest_map)) {}

  void run(const Step& s) {
    const Layer l = complete(p_, s);
    const Between& k = available_kernels(l.kernels)->between;
    const float* by_y = gradients_[s.y];
    const auto images = [&](const auto& task) { share(l.images, l.threads, parallel_, task); };
    if (s.kind == kLayer) return layer(s, l);
    float* by_x = gradients_[s.x];
    const bool add = is_written(s.x);
    if (s.kind == kHalve) images([&](int64_t n) { k.halve_backward(l, n, by_y, by_x, add); });
    else if (s.kind == kRepeat) images([&](int64_t n) { k.repeat_backward(l, n, by_y, by_x, add); });
    else if (s.kind == kAttend)
      share_attention(l, k.attention_scratch(l), parallel_,
                      [&](int64_t n, float* scratch) { k.attend_backward(l, n, scratch, by_y, by_x); });
    else if (s.kind == kRead)
      read(s, l, add);
    else {
      const int64_t rest = l.outputs - l.inputs;
      images([&](int64_t n) { k.part_backward(l, n, by_y, 0, l.inputs, by_x, add); });
      const bool add_other = is_written(s.other);
      images([&](int64_t n) { k.part_backward(l, n, by_y, l.inputs, rest, gradients_[s.other], add_other); });
    }
  }

 private:
  // Whether something is in the gradient of this buffer; from now on there is.
  bool is_written(int64_t buffer) {
    const bool before = written_[(size_t)buffer];
    written_[(size_t)buffer] = true;
    return before;
  }

  void layer(const Step& s, const Layer& l) {
    const bool add_x = is_written(s.x), add_residual = s.other && is_written(s.other);
    Gradients g{gradients_[s.y],    gradients_[s.x],      gradients_[s.gain], gradients_[s.offset],
                gradients_[s.weight], gradients_[s.bias], gradients_[s.other]};
    if (add_x) g.by_x = scratch_.get();
    if (add_residual) g.by_residual = scratch_.get() + p_.largest_map;
    run_backward(l, g, parallel_);
    if (add_x) accumulate(l, l.inputs, g.by_x, gradients_[s.x]);
    if (add_residual) accumulate(l, l.outputs, g.by_residual, gradients_[s.other]);
  }

  void read(const Step& s, const Layer& l, bool add) {
    const Between& k = available_kernels(l.kernels)->between;
    const int64_t size = k.reading_shares(l), weights = 2 * l.inputs;
    const Buffer shares = allocate(l.images * size);
    share(l.images, l.threads, parallel_,
          [&](int64_t n) { k.read_backward(l, n, gradients_[s.y], gradients_[s.x], add, shares.get()); });
    add_shares(shares.get(), l.images, size, weights, gradients_[s.weight]);
    add_shares(shares.get() + weights, l.images, size, weights, gradients_[s.bias]);
    add_shares(shares.get() + 2 * weights, l.images, size, 1, gradients_[s.gain]);
    add_shares(shares.get() + 2 * weights + 1, l.images, size, 1, gradients_[s.offset]);
  }

  void accumulate(const Layer& l, int64_t channels, const float* from, float* to) {
    const Between& k = available_kernels(l.kernels)->between;
    const int64_t size = l.height * l.width * channels;
    share(l.images, l.threads, parallel_, [&](int64_t n) { k.accumulate(n, size, from, to); });
  }

  const Run& p_;
  float* const* gradients_;
  Parallel parallel_;
  std::vector<bool> written_;
  Buffer scratch_;
};

}  // namespace
}  // namespace layer
