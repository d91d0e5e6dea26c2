// Sorts splats by depth.
#pragma once

#include "splat.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace splat {

// A stable sort of positive depths, nearest first: a radix sort by their float32 bits, eight at a time, then a
// comparison of the doubles among equal bits.
class DepthSorter {
 public:
  void clear() { keys_.clear(); }

  // Adds splats[first .. first + count - 1].
  void add(const SortRecord* splats, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) {
      const float depth = (float)splats[i].depth;
      uint32_t bits;
      std::memcpy(&bits, &depth, sizeof bits);
      keys_.push_back((uint64_t)bits << 32 | (uint64_t)i);
    }
  }

  // The keys in order; `index` returns the splat of a key.
  const std::vector<uint64_t>& sort(const SortRecord* splats) {
    other_.resize(keys_.size());
    count_digits();
    for (int digit = 0; digit < kDigits; ++digit) pass(digit);
    settle_ties(splats);
    return keys_;
  }

  static int64_t index(uint64_t key) { return (int64_t)(key & 0xffffffffu); }

 private:
  static constexpr int kBits = 8, kDigits = 32 / kBits, kValues = 1 << kBits;

  static int value(uint64_t key, int digit) { return (int)(key >> (32 + kBits * digit) & (kValues - 1)); }

  void count_digits() {
    std::memset(starts_, 0, sizeof starts_);
    for (const uint64_t key : keys_)
      for (int digit = 0; digit < kDigits; ++digit) ++starts_[digit][value(key, digit)];
  }

  void pass(int digit) {
    uint32_t* starts = starts_[digit];
    uint32_t start = 0;
    for (int i = 0; i < kValues; ++i) {
      const uint32_t size = starts[i];
      if (size == keys_.size()) return;  // this digit is equal in all keys
      starts[i] = start;
      start += size;
    }
    for (const uint64_t key : keys_) other_[starts[value(key, digit)]++] = key;
    keys_.swap(other_);
  }

  void settle_ties(const SortRecord* splats) {
    const auto nearer = [splats](uint64_t a, uint64_t b) {
      return splats[index(a)].depth < splats[index(b)].depth;
    };
    for (size_t i = 0; i + 1 < keys_.size();) {
      size_t j = i + 1;
      while (j < keys_.size() && keys_[j] >> 32 == keys_[i] >> 32) ++j;
      if (j > i + 1) std::stable_sort(keys_.begin() + i, keys_.begin() + j, nearer);
      i = j;
    }
  }

  std::vector<uint64_t> keys_, other_;
  uint32_t starts_[kDigits][kValues];
};

}  // namespace splat
