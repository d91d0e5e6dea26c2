// The layers of a network: kernels for several instruction sets, and the C interface, which runs the forward or the
// backward pass of many steps in one call.  No state outlives a call.  Results do not depend on the number of threads.

#include "layer.hpp"

#include "../processor.hpp"
#include "../threads.hpp"

#include <algorithm>
#include <memory>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace layers::avx2 {
#define VECTOR_AVX2
constexpr int kLanes = 8;
template <int V> constexpr int kTile = V == 1 ? 8 : 4;  // of 16 registers
#include "kernels.inc"
constexpr Kernels kKernels{"avx2", kLanes, points, pack_forward, pack_backward,
                           forward, backward, weight_gradient, tiles, finish_weight_gradient, kPerImageOps};
}  // namespace layers::avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#endif
namespace layers::avx512 {
#define VECTOR_AVX512
#define VECTOR_WIDE
constexpr int kLanes = 16;
template <int V> constexpr int kTile = V == 1 ? 16 : 8;  // of 32 registers
#include "kernels.inc"
constexpr Kernels kKernels{"avx512", kLanes, points, pack_forward, pack_backward,
                           forward, backward, weight_gradient, tiles, finish_weight_gradient, kPerImageOps};
}  // namespace layers::avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

namespace layers {
namespace {

using native::Team;

// Kernels that this processor can run, fastest first; nullptr beyond the last.  Processors without AVX2 have none: torch
// is as fast there.
const Kernels* available_kernels(int64_t index) {
  const Kernels* available[2] = {};
  int count = 0;
#if defined(__x86_64__)
  static const native::Processor processor = native::detect_processor();
  if (processor.avx512) available[count++] = &avx512::kKernels;
  if (processor.avx2) available[count++] = &avx2::kKernels;
#endif
  return index >= 0 && index < count ? available[index] : nullptr;
}

// Buffers start at a cache line, so that no vector crosses two of them.
constexpr std::align_val_t kLine{64};

struct Free {
  void operator()(float* p) const { operator delete[](p, kLine); }
};

using Buffer = std::unique_ptr<float[], Free>;

Buffer allocate(int64_t size) { return Buffer(new (kLine) float[(size_t)std::max<int64_t>(size, 1)]); }

int64_t taps(const Layer& l) { return l.side * l.side; }

void run_forward(const Layer& l, Team& team, float* y) {
  const Kernels& k = *available_kernels(l.kernels);
  const Buffer weights = allocate(k.points(l) * l.inputs * l.outputs);
  if (l.side) k.pack_forward(l, weights.get());
  team.each(l.images, [&](int64_t image, int) { k.forward(l, weights.get(), image, y); });
}

// total = the sum over images of `count` numbers each; those of consecutive images are `step` numbers apart.
void sum_partials(const float* partials, int64_t images, int64_t step, int64_t count, float* total) {
  if (!total) return;
  std::fill_n(total, count, 0.0f);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t c = 0; c < count; ++c) total[c] += partials[n * step + c];
}

void run_backward(const Layer& l, const Gradients& g, Team& team) {
  const Kernels& k = *available_kernels(l.kernels);
  const int64_t border = 2 * (l.side / 2), image = l.side ? (l.height + border) * (l.width + border) * l.outputs : 0;
  const bool single_thread = team.threads() == 1;
  const bool reuses_grad_y = l.side == 1 && l.scale == 1 && !g.grad_residual;  // grad_y serves as it is
  const int64_t points = k.points(l), count = l.inputs * l.outputs;
  const bool transformed = points != taps(l);
  const Buffer weights = allocate(points * count), sums = allocate(transformed ? points * count : 0);
  const Buffer padded_grad = allocate(reuses_grad_y ? 0 : single_thread ? image : l.images * image);
  const Buffer grad_gain = allocate(l.images * l.inputs), grad_offset = allocate(l.images * l.inputs);
  const Buffer grad_bias = allocate(l.images * l.outputs);
  const Scratch s{weights.get(),  reuses_grad_y ? const_cast<float*>(g.grad_y) : padded_grad.get(),
                  single_thread && !reuses_grad_y ? 0 : image, grad_gain.get(), grad_offset.get(), grad_bias.get()};
  const int64_t tiles = g.grad_weight ? k.tiles(l) : 0;
  float* grad_weight = transformed ? sums.get() : g.grad_weight;
  std::fill_n(grad_weight, tiles ? points * count : 0, 0.0f);
  if (l.side && g.grad_x) k.pack_backward(l, weights.get());
  if (single_thread) {  // image by image, so that the results of one phase are in the cache for the next
    for (int64_t n = 0; n < l.images; ++n) {
      k.backward(l, g, s, n);
      if (tiles) k.weight_gradient(l, s, n, 0, tiles, grad_weight);
    }
  } else {  // images in parallel, then parts of the weights
    team.each(l.images, [&](int64_t n, int) { k.backward(l, g, s, n); });
    const int64_t parts = std::min<int64_t>(team.threads(), tiles);
    team.each(parts, [&](int64_t part, int) {
      for (int64_t n = 0; n < l.images; ++n)
        k.weight_gradient(l, s, n, tiles * part / parts, tiles * (part + 1) / parts, grad_weight);
    });
  }
  if (transformed && tiles) k.finish_weight_gradient(l, sums.get(), g.grad_weight);
  if (l.groups) {
    sum_partials(s.grad_gain, l.images, l.inputs, l.inputs, g.grad_gain);
    sum_partials(s.grad_offset, l.images, l.inputs, l.inputs, g.grad_offset);
  }
  if (l.side) sum_partials(s.grad_bias, l.images, l.outputs, l.outputs, g.grad_bias);
}

}  // namespace
}  // namespace layers

#include "graph_executor.hpp"

#define NATIVE_EXPORT extern "C" __attribute__((visibility("default")))

// Name of the kernels `index`, nullptr beyond the last.
NATIVE_EXPORT const char* layers_kernels(int64_t index) {
  const auto* k = layers::available_kernels(index);
  return k ? k->name : nullptr;
}

// Channels that the kernels `index` take at a time.
NATIVE_EXPORT int64_t layers_lanes(int64_t index) { return layers::available_kernels(index)->lanes; }

// Runs the steps in order.  Returns a Status.
NATIVE_EXPORT int layers_forward(const layers::Run* run) { return layers::forward(*run); }

// Runs the steps backward after layers_forward.  `gradients` are addresses, numbered like run->buffers; nullptr for a
// parameter whose gradient is not needed.  The gradients of the outputs are inputs.  Returns a Status.
NATIVE_EXPORT int layers_backward(const layers::Run* run, float* const* gradients) {
  return layers::backward(*run, gradients);
}
