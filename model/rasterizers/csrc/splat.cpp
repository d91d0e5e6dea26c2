// The driver: a plain C interface, one call for a batch of scenes and their views.  No state outlives a call.

#include "splat.hpp"

#include "processor.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

// The kernels, once for each kind of processor worth telling apart.  Vectors are eight floats or eight doubles, so
// AVX-512 gains by doubles and masks, some 15% in all.
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

// What both calls are given.  Mirrored field by field in cpu.py: all members take eight bytes.
struct Batch {
  int64_t scenes, views, gaussians, coefficients, height, width, antialiasing, threads;
  int64_t kernels;  // which of available_kernels
  double near_plane;
  const float *means, *scales, *rotations, *opacities, *sh;  // [scenes][gaussians][...]
  const double* cameras;    // [scenes][views][16]: rows of [R | t], focal, principal
  const float* background;  // [scenes][3]
  // What forward leaves for backward.
  Splat* splats;            // [scenes][views][gaussians], the first `counts` nearest first
  int64_t* counts;          // [scenes][views]
  float* transmittance;     // [scenes][views][planes], planes = splat_plane_size(height, width)
  int32_t* stopped;         // [scenes][views][planes]
};

namespace {

enum Status : int { kDone = 0, kOutOfMemory = 1 };

int64_t plane_size(int64_t height, int64_t width) { return height * (width + kLanes) + kLanes; }

Frame make_frame(const Batch& b) {
  return Frame{(int)b.height, (int)b.width, (int)b.width + kLanes, b.near_plane, b.antialiasing != 0};
}

Scene make_scene(const Batch& b, int64_t scene) {
  const int64_t g = scene * b.gaussians;
  return Scene{b.means + 3 * g,   b.scales + 3 * g,
               b.rotations + 4 * g, b.opacities + g,
               b.sh + 3 * b.coefficients * g, b.gaussians, (int)b.coefficients};
}

// centre = -R^-1 t, by cofactors: R need not be a rotation.
void find_centre(Camera& c) {
  const auto& r = c.rotation;
  double cofactors[3][3], determinant = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) {
      const int a = (i + 1) % 3, b = (i + 2) % 3, p = (j + 1) % 3, q = (j + 2) % 3;
      cofactors[i][j] = r[a][p] * r[b][q] - r[a][q] * r[b][p];
    }
  for (int j = 0; j < 3; ++j) determinant += r[0][j] * cofactors[0][j];
  for (int j = 0; j < 3; ++j) {
    c.centre[j] = 0;
    for (int i = 0; i < 3; ++i) c.centre[j] -= cofactors[i][j] * c.translation[i] / determinant;
  }
}

Camera make_camera(const Batch& b, int64_t render) {
  const double* p = b.cameras + 16 * render;
  const double size[2] = {(double)b.width, (double)b.height};
  Camera c;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[i][j] = p[4 * i + j];
    c.translation[i] = p[4 * i + 3];
  }
  for (int i = 0; i < 2; ++i) {
    c.focal[i] = p[12 + i];
    c.principal[i] = p[14 + i] - 0.5;
    c.limit[i] = kFrustumMargin * size[i] / (2 * c.focal[i]);
  }
  find_centre(c);
  return c;
}

// Calls work(task) for tasks 0..count-1 on up to `threads` threads.  Each thread makes its own `Work`, which owns its
// scratch memory.  Which thread takes a task must not matter to the result.
template <class Work, class... Arguments>
Status share(int64_t count, int64_t threads, const Arguments&... arguments) {
  std::atomic<int64_t> next{0};
  std::atomic<int> status{kDone};
  const auto run = [&]() noexcept {
    try {
      Work work(arguments...);
      for (int64_t task = next++; task < count && status == kDone; task = next++) work(task);
    } catch (const std::bad_alloc&) {
      status = kOutOfMemory;
    }
  };
  std::vector<std::thread> helpers;
  try {
    helpers.reserve(std::max<int64_t>(0, std::min(count, threads) - 1));
    while (helpers.size() < helpers.capacity()) helpers.emplace_back(run);
  } catch (const std::system_error&) {  // no more threads to be had: those that started, and this one, do it all
  } catch (const std::bad_alloc&) {
  }
  run();
  for (auto& helper : helpers) helper.join();
  return (Status)status.load();
}

// Order of depths (positive), nearest first, equal ones as they come: radix sort by their float32 bits, 11 at a time,
// then by the whole double among equal bits.
class DepthSorter {
 public:
  const std::vector<uint64_t>& sort(const double* depths, int64_t count) {
    keys_.resize(count);
    other_.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const float depth = (float)depths[i];
      uint32_t bits;
      std::memcpy(&bits, &depth, sizeof bits);
      keys_[i] = (uint64_t)bits << 32 | (uint64_t)i;
    }
    for (int shift = 32; shift < 64; shift += kBits) pass(shift);
    settle_ties(depths);
    return keys_;
  }

  static int64_t index(uint64_t key) { return (int64_t)(key & 0xffffffffu); }

 private:
  static constexpr int kBits = 11;

  void pass(int shift) {
    constexpr uint64_t kMask = (1u << kBits) - 1;
    size_t starts[kMask + 1] = {};
    for (const uint64_t key : keys_) ++starts[key >> shift & kMask];
    size_t start = 0;
    for (size_t& s : starts) {
      const size_t size = s;
      if (size == keys_.size()) return;  // all alike here
      s = start;
      start += size;
    }
    for (const uint64_t key : keys_) other_[starts[key >> shift & kMask]++] = key;
    keys_.swap(other_);
  }

  void settle_ties(const double* depths) {
    const auto nearer = [depths](uint64_t a, uint64_t b) { return depths[index(a)] < depths[index(b)]; };
    for (size_t i = 0; i + 1 < keys_.size();) {
      size_t j = i + 1;
      while (j < keys_.size() && keys_[j] >> 32 == keys_[i] >> 32) ++j;
      if (j > i + 1) std::stable_sort(keys_.begin() + i, keys_.begin() + j, nearer);
      i = j;
    }
  }

  std::vector<uint64_t> keys_, other_;
};

std::vector<Block> make_blocks(const Frame& frame) {
  return std::vector<Block>((size_t)frame.height * (frame.width / kLanes + 1));
}

// Draws one view of one scene.
class Draw {
 public:
  Draw(const Batch& batch, float* images)
      : batch_(batch),
        frame_(make_frame(batch)),
        plane_(plane_size(batch.height, batch.width)),
        images_(images),
        unsorted_(batch.gaussians),
        depths_(batch.gaussians),
        colours_(3 * plane_),
        blocks_(make_blocks(frame_)) {}

  void operator()(int64_t render) {
    const Kernels& k = *available_kernels(batch_.kernels);
    const int64_t scene = render / batch_.views;
    Splat* splats = batch_.splats + render * batch_.gaussians;
    const int64_t count = k.project(make_scene(batch_, scene), make_camera(batch_, render), frame_, unsorted_.data(),
                                    depths_.data());
    const auto& order = sorter_.sort(depths_.data(), count);
    for (int64_t i = 0; i < count; ++i) splats[i] = unsorted_[DepthSorter::index(order[i])];
    batch_.counts[render] = count;

    std::fill(colours_.begin(), colours_.end(), 0.0f);
    const Planes planes{colours_.data(), colours_.data() + plane_, colours_.data() + 2 * plane_,
                        batch_.transmittance + render * plane_, batch_.stopped + render * plane_};
    std::fill_n(planes.transmittance, plane_, 1.0f);
    std::fill_n(planes.stopped, plane_, kNeverStopped);
    k.rasterise(splats, count, frame_, blocks_.data(), planes);
    write_image(planes, batch_.background + 3 * scene, images_ + render * 3 * batch_.height * batch_.width);
  }

 private:
  void write_image(const Planes& planes, const float* background, float* image) const {
    const float* colours[3] = {planes.red, planes.green, planes.blue};
    for (int c = 0; c < 3; ++c)
      for (int y = 0; y < frame_.height; ++y) {
        const float* colour = colours[c] + (int64_t)y * frame_.stride;
        const float* transmittance = planes.transmittance + (int64_t)y * frame_.stride;
        for (int x = 0; x < frame_.width; ++x) *image++ = colour[x] + transmittance[x] * background[c];
      }
  }

  const Batch& batch_;
  const Frame frame_;
  const int64_t plane_;
  float* images_;
  std::vector<Splat> unsorted_;
  std::vector<double> depths_;
  std::vector<float> colours_;
  std::vector<Block> blocks_;
  DepthSorter sorter_;
};

// From dLoss/dimage to the moments of one view's splats, and to dLoss/dbackground.
class DrawBackward {
 public:
  DrawBackward(const Batch& batch, const float* by_images, Moments* moments, float* by_background)
      : batch_(batch),
        frame_(make_frame(batch)),
        plane_(plane_size(batch.height, batch.width)),
        by_images_(by_images),
        moments_(moments),
        by_background_(by_background),
        by_colours_(3 * plane_),
        transmittance_(plane_),
        behind_(plane_),
        blocks_(make_blocks(frame_)) {}

  void operator()(int64_t render) {
    const int64_t scene = render / batch_.views, pixels = batch_.height * batch_.width;
    std::copy_n(batch_.transmittance + render * plane_, plane_, transmittance_.begin());
    std::fill(behind_.begin(), behind_.end(), 0.0f);
    for (int c = 0; c < 3; ++c)
      by_background_[3 * render + c] = read_channel(by_images_ + (3 * render + c) * pixels,
                                                    batch_.background[3 * scene + c], by_colours_.data() + c * plane_);
    const Planes planes{by_colours_.data(), by_colours_.data() + plane_, by_colours_.data() + 2 * plane_,
                        transmittance_.data(), batch_.stopped + render * plane_};
    available_kernels(batch_.kernels)->rasterise_backward(batch_.splats + render * batch_.gaussians, batch_.counts[render], frame_,
                                 blocks_.data(), planes, behind_.data(), moments_ + render * batch_.gaussians);
  }

 private:
  // Copies one channel of dLoss/dimage into its plane and adds the background's share to what lies behind;
  // returns dLoss/dbackground.  The overhang of the rows keeps its zeros.
  float read_channel(const float* by_image, float background, float* plane) {
    double by_background = 0;
    for (int y = 0; y < frame_.height; ++y) {
      const int64_t row = (int64_t)y * frame_.stride;
      float by_row = 0;
      for (int x = 0; x < frame_.width; ++x) {
        const float by_pixel = *by_image++;
        const float share = by_pixel * transmittance_[row + x];
        plane[row + x] = by_pixel;
        behind_[row + x] += share * background;
        by_row += share;
      }
      by_background += by_row;
    }
    return (float)by_background;
  }

  const Batch& batch_;
  const Frame frame_;
  const int64_t plane_;
  const float* by_images_;
  Moments* moments_;
  float* by_background_;
  std::vector<float> by_colours_, transmittance_, behind_;
  std::vector<Block> blocks_;
};

// From the moments of all views to the gradients of a chunk of one scene's Gaussians.
class ProjectBackward {
 public:
  static constexpr int64_t kChunk = 64 * kLanes;

  ProjectBackward(const Batch& batch, const Moments* moments, const SceneGradient& out)
      : batch_(batch), moments_(moments), out_(out), chunks_(chunks(batch)) {}

  static int64_t chunks(const Batch& batch) { return (batch.gaussians + kChunk - 1) / kChunk; }

  void operator()(int64_t task) {
    const int64_t scene = task / chunks_, first = task % chunks_ * kChunk, g = scene * batch_.gaussians;
    cameras_.clear();
    for (int64_t v = 0; v < batch_.views; ++v) cameras_.push_back(make_camera(batch_, scene * batch_.views + v));
    const SceneGradient out{out_.means + 3 * g, out_.scales + 3 * g, out_.rotations + 4 * g, out_.opacities + g,
                            out_.sh + 3 * batch_.coefficients * g};
    available_kernels(batch_.kernels)->project_backward(make_scene(batch_, scene), cameras_.data(), (int)batch_.views, make_frame(batch_),
                               moments_ + g * batch_.views, first, std::min(first + kChunk, batch_.gaussians), out);
  }

 private:
  const Batch& batch_;
  const Moments* moments_;
  const SceneGradient out_;
  const int64_t chunks_;
  std::vector<Camera> cameras_;
};

}  // namespace
}  // namespace splat

#define SPLAT_EXPORT extern "C" __attribute__((visibility("default")))

// Raised whenever a signature or layout below changes; cpu.py refuses a library of another version.
SPLAT_EXPORT int64_t splat_interface_version() { return 1; }

// Names of the kernels that this processor can run, fastest first; null beyond the last.
SPLAT_EXPORT const char* splat_kernels(int64_t index) {
  const splat::Kernels* kernels = splat::available_kernels(index);
  return kernels ? kernels->name : nullptr;
}

SPLAT_EXPORT int64_t splat_record_size() { return sizeof(splat::Splat); }

SPLAT_EXPORT int64_t splat_plane_size(int64_t height, int64_t width) { return splat::plane_size(height, width); }

// images [scenes][views][3][height][width].  Returns a Status.
SPLAT_EXPORT int splat_forward(const splat::Batch* batch, float* images) {
  return splat::share<splat::Draw>(batch->scenes * batch->views, batch->threads, *batch, images);
}

// by_images as images; gradients out as the inputs, by_background [scenes][views][3].  Returns a Status.
SPLAT_EXPORT int splat_backward(const splat::Batch* batch, const float* by_images, float* by_means, float* by_scales,
                                float* by_rotations, float* by_opacities, float* by_sh, float* by_background) {
  using namespace splat;
  std::vector<Moments> moments;
  try {
    moments.resize(batch->scenes * batch->views * batch->gaussians);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  const Status status = share<DrawBackward>(batch->scenes * batch->views, batch->threads, *batch, by_images,
                                            moments.data(), by_background);
  if (status != kDone) return status;
  const SceneGradient out{by_means, by_scales, by_rotations, by_opacities, by_sh};
  return share<ProjectBackward>(batch->scenes * ProjectBackward::chunks(*batch), batch->threads, *batch,
                                moments.data(), out);
}
