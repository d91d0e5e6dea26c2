// Instruction sets of this processor, read by CPUID.  `__builtin_cpu_supports` is not used: with some compilers (zig
// 0.17 is one) it reports none, and the fallback would be three times slower.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace native {

struct Processor {
  bool avx2 = false;    // and FMA
  bool avx512 = false;  // F, DQ, BW and VL
};

inline Processor detect_processor() {
  Processor p;
#if defined(__x86_64__)
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return p;
  const bool fma = c & (1u << 12), registers_are_saved = c & (1u << 27);
  if (!fma || !registers_are_saved) return p;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));  // which registers the system saves when it switches tasks
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return p;
  constexpr unsigned kYmm = 0x6, kZmm = 0xe6;
  constexpr unsigned kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31, kAll = kF | kDq | kBw | kVl;
  p.avx2 = (low & kYmm) == kYmm && (b & (1u << 5));
  p.avx512 = p.avx2 && (low & kZmm) == kZmm && (b & kAll) == kAll;
#endif
  return p;
}

}  // namespace native
