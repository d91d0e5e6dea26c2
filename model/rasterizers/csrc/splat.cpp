// The library: kernels for several kinds of processor, and the C interface.  No state outlives a call.

#include "draw.hpp"
#include "processor.hpp"
#include "splat.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The kernels, once for each kind of processor worth telling apart.  Vectors are eight floats or eight doubles, so
// AVX-512 gains by doubles and masks.  (Two blocks of eight pixels in one register of sixteen have been tried: drawing
// took 8 to 20% longer.)
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
#define SPLAT_AVX2
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
#define SPLAT_AVX512
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
  static const Processor processor = ask_processor();
  if (processor.avx512) available[count++] = &avx512::kKernels;
  if (processor.avx2) available[count++] = &avx2::kKernels;
#endif
  available[count++] = &generic::kKernels;
  return index >= 0 && index < count ? available[index] : nullptr;
}

}  // namespace
}  // namespace splat

#define SPLAT_EXPORT extern "C" __attribute__((visibility("default")))

// Raised whenever a signature or layout below changes; native.py refuses a library of another version.
SPLAT_EXPORT int64_t splat_interface_version() { return 3; }

// Names of the kernels that this processor can run, fastest first; null beyond the last.
SPLAT_EXPORT const char* splat_kernels(int64_t index) {
  const splat::Kernels* kernels = splat::available_kernels(index);
  return kernels ? kernels->name : nullptr;
}

// Bytes of `batch->state`; only the sizes in the batch matter.
SPLAT_EXPORT int64_t splat_state_size(const splat::Batch* batch) { return splat::State(*batch).size; }

// images [scenes][views][3][height][width], inverse_depths [scenes][views][1][height][width] or null.  Returns a
// Status.
SPLAT_EXPORT int splat_forward(const splat::Batch* batch, float* images, float* inverse_depths) {
  return splat::run_forward(*batch, *splat::available_kernels(batch->kernels), images, inverse_depths);
}

// by_images and by_inverse_depths as above; gradients out as the inputs, by_background [scenes][3] or null.  Returns a
// Status.
SPLAT_EXPORT int splat_backward(const splat::Batch* batch, const float* by_images, const float* by_inverse_depths,
                                float* by_means, float* by_scales, float* by_rotations, float* by_opacities,
                                float* by_sh, float* by_background) {
  const splat::Gradients gradients{by_images, by_inverse_depths,
                                   {by_means, by_scales, by_rotations, by_opacities, by_sh}, by_background};
  return splat::run_backward(*batch, *splat::available_kernels(batch->kernels), gradients);
}
