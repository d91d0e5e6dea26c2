// The driver: a plain C interface, one call for the forward or the backward pass of one layer.  No state outlives a
// call.  Results do not depend on the number of threads.

#include "layer.hpp"

#include "../../rasterizers/csrc/processor.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace layer::avx2 {
constexpr int kLanes = 8;
template <int V> constexpr int kTile = V == 1 ? 8 : 4;  // of 16 registers
#include "kernels.inc"
constexpr Kernels kKernels{"avx2", kLanes, points, pack_forward, pack_backward,
                           forward, backward, weigh, tiles, finish_weights, kBetween};
}  // namespace layer::avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#endif
namespace layer::avx512 {
constexpr int kLanes = 16;
template <int V> constexpr int kTile = V == 1 ? 16 : 8;  // of 32 registers
#include "kernels.inc"
constexpr Kernels kKernels{"avx512", kLanes, points, pack_forward, pack_backward,
                           forward, backward, weigh, tiles, finish_weights, kBetween};
}  // namespace layer::avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

namespace layer {
namespace {

// Kernels that this processor can run, fastest first; nullptr beyond the last.  There are none for processors without
// wide vectors: a general library serves those as well.
const Kernels* available_kernels(int64_t index) {
  const Kernels* available[2] = {};
  int count = 0;
#if defined(__x86_64__)
  static const splat::Processor processor = splat::ask_processor();
  if (processor.avx512) available[count++] = &avx512::kKernels;
  if (processor.avx2) available[count++] = &avx2::kKernels;
#endif
  return index >= 0 && index < count ? available[index] : nullptr;
}

enum Status : int { kDone = 0, kOutOfMemory = 1 };

// GOMP_parallel of libgomp: calls work(data) on `threads` threads and waits for all.  Torch's own pool, where torch
// uses libgomp as well.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

// Calls task(i) for 0 <= i < count, shared among threads.
template <class Task>
void share(int64_t count, int64_t threads, Parallel parallel, const Task& task) {
  struct Shared {
    const Task& task;
    const int64_t count;
    std::atomic<int64_t> next{0};
  } shared{task, count};
  const auto work = [](void* data) {
    auto& s = *static_cast<Shared*>(data);
    for (int64_t i = s.next++; i < s.count; i = s.next++) s.task(i);
  };
  threads = std::min(threads, count);
  if (threads > 1 && parallel) parallel(work, &shared, (unsigned)threads, 0);
  else work(&shared);
}

// Vectors that start on a cache line never straddle two.
constexpr std::align_val_t kLine{64};

struct Free {
  void operator()(float* p) const { operator delete[](p, kLine); }
};

using Buffer = std::unique_ptr<float[], Free>;

Buffer allocate(int64_t size) { return Buffer(new (kLine) float[(size_t)std::max<int64_t>(size, 1)]); }

int64_t taps(const Layer& l) { return l.side * l.side; }

void run_forward(const Layer& l, Parallel parallel, float* y) {
  const Kernels& k = *available_kernels(l.kernels);
  const Buffer weights = allocate(k.points(l) * l.inputs * l.outputs);
  if (l.side) k.pack_forward(l, weights.get());
  share(l.images, l.threads, parallel, [&](int64_t image) { k.forward(l, weights.get(), image, y); });
}

// The sum over images of `count` numbers each, from one image's to the next `step`.
void add_shares(const float* shares, int64_t images, int64_t step, int64_t count, float* total) {
  if (!total) return;
  std::fill_n(total, count, 0.0f);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t c = 0; c < count; ++c) total[c] += shares[n * step + c];
}

void run_backward(const Layer& l, const Gradients& g, Parallel parallel) {
  const Kernels& k = *available_kernels(l.kernels);
  const int64_t border = 2 * (l.side / 2), image = l.side ? (l.height + border) * (l.width + border) * l.outputs : 0;
  const bool alone = l.threads == 1 || !parallel;
  const bool plain = l.side == 1 && l.scale == 1 && !g.by_residual;  // by_y serves as it is
  const int64_t points = k.points(l), count = l.inputs * l.outputs;
  const bool transformed = points != taps(l);
  const Buffer weights = allocate(points * count), sums = allocate(transformed ? points * count : 0);
  const Buffer spread = allocate(plain ? 0 : alone ? image : l.images * image);
  const Buffer by_gain = allocate(l.images * l.inputs), by_offset = allocate(l.images * l.inputs);
  const Buffer by_bias = allocate(l.images * l.outputs);
  const Scratch s{weights.get(),  plain ? const_cast<float*>(g.by_y) : spread.get(),
                  alone && !plain ? 0 : image, by_gain.get(), by_offset.get(), by_bias.get()};
  const int64_t tiles = g.by_weight ? k.tiles(l) : 0;
  float* by_weight = transformed ? sums.get() : g.by_weight;
  std::fill_n(by_weight, tiles ? points * count : 0, 0.0f);
  if (l.side && g.by_x) k.pack_backward(l, weights.get());
  if (alone) {  // image by image, so that what one phase leaves is at hand for the next
    for (int64_t n = 0; n < l.images; ++n) {
      k.backward(l, g, s, n);
      if (tiles) k.weigh(l, s, n, 0, tiles, by_weight);
    }
  } else {  // images in parallel, then parts of the weights
    share(l.images, l.threads, parallel, [&](int64_t n) { k.backward(l, g, s, n); });
    const int64_t parts = std::min(l.threads, tiles);
    share(parts, l.threads, parallel, [&](int64_t part) {
      for (int64_t n = 0; n < l.images; ++n)
        k.weigh(l, s, n, tiles * part / parts, tiles * (part + 1) / parts, by_weight);
    });
  }
  if (transformed && tiles) k.finish_weights(l, sums.get(), g.by_weight);
  if (l.groups) {
    add_shares(s.by_gain, l.images, l.inputs, l.inputs, g.by_gain);
    add_shares(s.by_offset, l.images, l.inputs, l.inputs, g.by_offset);
  }
  if (l.side) add_shares(s.by_bias, l.images, l.outputs, l.outputs, g.by_bias);
}

}  // namespace
}  // namespace layer

#include "program.hpp"

#define LAYER_EXPORT extern "C" __attribute__((visibility("default")))

// Of native.py; raised together.
LAYER_EXPORT int64_t layer_interface_version() { return 3; }

// Name of the kernels `index`, nullptr beyond the last; and how many channels at a time they take.
LAYER_EXPORT const char* layer_kernels(int64_t index) {
  const auto* k = layer::available_kernels(index);
  return k ? k->name : nullptr;
}

LAYER_EXPORT int64_t layer_lanes(int64_t index) { return layer::available_kernels(index)->lanes; }

// `parallel` may be nullptr: then one thread does it all.
LAYER_EXPORT int layer_forward(const layer::Layer* l, layer::Parallel parallel, float* y) {
  try {
    layer::run_forward(*l, parallel, y);
    return layer::kDone;
  } catch (const std::bad_alloc&) {
    return layer::kOutOfMemory;
  }
}

LAYER_EXPORT int layer_backward(const layer::Layer* l, const layer::Gradients* g, layer::Parallel parallel) {
  try {
    layer::run_backward(*l, *g, parallel);
    return layer::kDone;
  } catch (const std::bad_alloc&) {
    return layer::kOutOfMemory;
  }
}

LAYER_EXPORT int layer_run(const layer::Run* p, layer::Parallel parallel) {
  try {
    for (int64_t i = 0; i < p->count; ++i) layer::run_step(*p, p->steps[i], parallel);
    return layer::kDone;
  } catch (const std::bad_alloc&) {
    return layer::kOutOfMemory;
  }
}

// Where dLoss/d... of each buffer goes: `gradients`, numbered as p->buffers; nullptr where a parameter's is not wanted.
// That of the last step's result is given.
LAYER_EXPORT int layer_run_backward(const layer::Run* p, float* const* gradients, layer::Parallel parallel) {
  try {
    layer::Backward backward(*p, gradients, parallel);
    for (int64_t i = p->count - 1; i >= 0; --i) backward.run(p->steps[i]);
    return layer::kDone;
  } catch (const std::bad_alloc&) {
    return layer::kOutOfMemory;
  }
}
