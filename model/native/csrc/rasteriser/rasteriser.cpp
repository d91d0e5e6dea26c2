// The rasteriser: kernels for several instruction sets, and the C interface.  No state outlives a call.

#include "../processor.hpp"
#include "draw.hpp"
#include "splat.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The kernels, compiled once per instruction set.  Vectors are eight floats or eight doubles, so AVX-512 helps by its
// doubles and masks.  (Two blocks of eight pixels in one register of sixteen made drawing 8 to 20% slower.)
namespace splat::generic {
#include "kernels.inc"
constexpr Kernels kKernels{"generic", project, rasterise, rasterise_backward, project_backward};
}  // namespace splat::generic

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace splat::avx2 {
#define VECTOR_AVX2
#include "kernels.inc"
constexpr Kernels kKernels{"avx2", project, rasterise, rasterise_backward, project_backward};
}  // namespace splat::avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma")
#endif
namespace splat::avx512 {
#define VECTOR_AVX512
#include "kernels.inc"
constexpr Kernels kKernels{"avx512", project, rasterise, rasterise_backward, project_backward};
}  // namespace splat::avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

namespace splat {
namespace {

// Kernels that this processor can run, fastest first; nullptr beyond the last.
const Kernels* available_kernels(int64_t index) {
  const Kernels* available[3] = {};
  int count = 0;
#if defined(__x86_64__)
  static const native::Processor processor = native::detect_processor();
  if (processor.avx512) available[count++] = &avx512::kKernels;
  if (processor.avx2) available[count++] = &avx2::kKernels;
#endif
  available[count++] = &generic::kKernels;
  return index >= 0 && index < count ? available[index] : nullptr;
}

}  // namespace
}  // namespace splat

#define NATIVE_EXPORT extern "C" __attribute__((visibility("default")))

// Raised whenever a signature or layout of the library changes; library.py refuses a library of another version.
NATIVE_EXPORT int64_t native_interface_version() { return 4; }

// Names of the kernels that this processor can run, fastest first; null beyond the last.
NATIVE_EXPORT const char* rasteriser_kernels(int64_t index) {
  const splat::Kernels* kernels = splat::available_kernels(index);
  return kernels ? kernels->name : nullptr;
}

// Bytes of `batch->state`; reads only the sizes in the batch.
NATIVE_EXPORT int64_t rasteriser_state_size(const splat::Batch* batch) { return splat::State(*batch).size; }

// images [scenes][views][3][height][width], inverse_depths [scenes][views][1][height][width] or null.  Returns a
// Status.
NATIVE_EXPORT int rasteriser_forward(const splat::Batch* batch, float* images, float* inverse_depths) {
  return splat::run_forward(*batch, *splat::available_kernels(batch->kernels), images, inverse_depths);
}

// grad_images and grad_inverse_depths have the shapes above, the other gradients those of the inputs; grad_background
// [scenes][3] or null.  Returns a Status.
NATIVE_EXPORT int rasteriser_backward(const splat::Batch* batch, const float* grad_images,
                                      const float* grad_inverse_depths, float* grad_means, float* grad_scales,
                                      float* grad_rotations, float* grad_opacities, float* grad_sh,
                                      float* grad_background) {
  const splat::Gradients gradients{grad_images, grad_inverse_depths,
                                   {grad_means, grad_scales, grad_rotations, grad_opacities, grad_sh}, grad_background};
  return splat::run_backward(*batch, *splat::available_kernels(batch->kernels), gradients);
}
