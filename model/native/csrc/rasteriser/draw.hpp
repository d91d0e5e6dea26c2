// The forward and backward passes over the views of a scene, in phases that a team of threads shares.
#pragma once

#include "../threads.hpp"
#include "batch.hpp"
#include "sort.hpp"
#include "splat.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <vector>

namespace splat {

enum Stage : int { kProject, kSort, kRasterise, kRasteriseBackward, kCollect, kProjectBackward, kStages };

class Stopwatch {
 public:
  explicit Stopwatch(double* seconds) : seconds_(seconds) {}

  void lap(Stage stage) {
    if (!seconds_) return;
    const auto now = Clock::now();
    seconds_[stage] += std::chrono::duration<double>(now - start_).count();
    start_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  double* seconds_;
  Clock::time_point start_ = Clock::now();
};

// The arguments that all threads share.
struct Job {
  const Batch& batch;
  const Kernels& kernels;
  const State& state;
  Progress& progress;
};

// An array with uninitialised elements.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : memory_(new T[size]) {}
  T* data() { return memory_.get(); }
  T& operator[](int64_t i) { return memory_[i]; }

 private:
  std::unique_ptr<T[]> memory_;
};

// Memory of one thread.
class Scratch {
 public:
  explicit Scratch(const Batch& b)
      : plane_(band_size(b)),
        capacity_(std::max(kBlocks, band_rows(b) * (b.width / kLanes + 2))),
        planes_(kPlanes * plane_),
        pixels_(room()),
        fields_(3 * room()) {}

  // Memory for the pixels of one band; number 0 to 5.
  float* plane(int number) { return planes_.data() + number * plane_; }

  Blocks blocks() {
    return Blocks{pixels_.data(), fields_.data(), fields_.data() + room(), fields_.data() + 2 * room(), capacity_};
  }

  DepthSorter sorter;

 private:
  static constexpr int64_t kBlocks = 2048;
  static constexpr int kPlanes = 6;

  int64_t room() const { return capacity_ + kLanes; }

  const int64_t plane_, capacity_;
  Buffer<float> planes_;
  Buffer<int32_t> pixels_;
  Buffer<float> fields_;
};

// Draws scenes one after another.
class ForwardPass {
 public:
  ForwardPass(const Job& job, float* images, float* inverse_depths)
      : batch_(job.batch),
        kernels_(job.kernels),
        state_(job.state),
        progress_(job.progress),
        images_(images),
        inverse_depths_(inverse_depths),
        chunks_(chunk_count(batch_)),
        sort_records_(batch_.views * batch_.gaussians),
        written_(chunks_ * counters()) {}

  // Each member of the team uses one of the scratches.
  void operator()(int64_t scene, Team& team, Scratch* scratches) {
    Stopwatch watch(batch_.seconds);
    const int64_t first = scene * batch_.views, bands = band_count(batch_);
    team.each(chunks_, [&](int64_t chunk, int) { project(scene, chunk); });
    watch.lap(kProject);
    team.each(batch_.views, [&](int64_t view, int member) { sort(first + view, view, scratches[member].sorter); });
    watch.lap(kSort);
    team.each(batch_.views * bands, [&](int64_t task, int member) {
      draw(first + task / bands, task % bands, scratches[member]);
    });
    watch.lap(kRasterise);
  }

 private:
  // Distance between the counters of consecutive chunks.  It includes a cache line, to avoid false sharing by threads.
  int64_t counters() const { return batch_.views + 64 / (int64_t)sizeof(int64_t); }

  void project(int64_t scene, int64_t chunk) {
    const int64_t first = chunk * kChunk, last = std::min(first + kChunk, batch_.gaussians);
    if (!kernels_.project(make_scene(batch_, scene), &state_.cameras[scene * batch_.views], (int)batch_.views,
                          make_frame(batch_), first, last, state_.splats + scene * batch_.views * batch_.gaussians,
                          sort_records_.data(), &written_[chunk * counters()]))
      progress_.fail(native::kRefused);
  }

  void sort(int64_t render, int64_t view, DepthSorter& sorter) {
    const int64_t base = view * batch_.gaussians;
    sorter.clear();
    for (int64_t chunk = 0; chunk < chunks_; ++chunk)
      sorter.add(sort_records_.data(), base + chunk * kChunk, written_[chunk * counters() + view]);
    list(render, base, sorter.sort(sort_records_.data()));
  }

  // Lists each splat under the bands that it overlaps.  Keys of this render begin at `base`.
  void list(int64_t render, int64_t base, const std::vector<uint64_t>& keys) {
    const int64_t bands = band_count(batch_);
    const int rows = (int)band_rows(batch_);
    int32_t* lists = state_.lists + render * bands * batch_.gaussians;
    int64_t listed[kBandsMax] = {};
    for (const uint64_t key : keys) {
      const int64_t index = DepthSorter::index(key);
      const int last = sort_records_[index].last_row / rows;
      for (int band = sort_records_[index].first_row / rows; band <= last; ++band)
        lists[band * batch_.gaussians + listed[band]++] = (int32_t)(index - base);
    }
    std::copy_n(listed, bands, state_.listed + render * bands);
  }

  void draw(int64_t render, int64_t number, Scratch& scratch) {
    const Band band = make_band(batch_, number);
    const int64_t rows = band.last_row - band.first_row + 1;
    const int64_t offset = render * plane_size(batch_) + number * band_size(batch_);
    const Planes planes{{scratch.plane(0), scratch.plane(1), scratch.plane(2),
                         inverse_depths_ ? scratch.plane(3) : nullptr},
                        state_.transmittance + offset,
                        state_.stopped + offset};
    for (float* channel : planes.channels)
      if (channel) std::fill_n(channel, rows * band.stride, 0.0f);
    std::fill_n(planes.transmittance, rows * band.stride, 1.0f);
    std::fill_n(planes.stopped, rows * band.stride, kNeverStopped);

    kernels_.rasterise(state_.list(batch_, render, number), band, scratch.blocks(), planes);
    write(render, band, planes);
  }

  void write(int64_t render, const Band& band, const Planes& planes) const {
    const int64_t pixels = batch_.height * batch_.width, first = (int64_t)band.first_row * batch_.width;
    const float* background = batch_.background + 3 * (render / batch_.views);
    for (int64_t i = 0; i < (band.last_row - band.first_row + 1) * (int64_t)band.stride; ++i)
      planes.transmittance[i] = std::fabs(planes.transmittance[i]);
    for (int c = 0; c < 3; ++c)
      write_channel(band, planes.channels[c], planes.transmittance, background[c],
                    images_ + (3 * render + c) * pixels + first);
    if (inverse_depths_)
      write_channel(band, planes.channels[3], planes.transmittance, 0, inverse_depths_ + render * pixels + first);
  }

  static void write_channel(const Band& band, const float* channel, const float* transmittance, float background,
                            float* out) {
    for (int row = band.first_row; row <= band.last_row; ++row) {
      for (int x = 0; x < band.width; ++x) out[x] = channel[x] + transmittance[x] * background;
      out += band.width;
      channel += band.stride;
      transmittance += band.stride;
    }
  }

  const Batch& batch_;
  const Kernels& kernels_;
  const State& state_;
  Progress& progress_;
  float* const images_;
  float* const inverse_depths_;  // null if not requested
  const int64_t chunks_;
  // For the current scene:
  Buffer<SortRecord> sort_records_;  // [views][gaussians], written chunk by chunk, with gaps
  Buffer<int64_t> written_;  // [chunks][counters()]: splats of the chunk on each view, then padding
};

// The gradients of the images, which are inputs, and of the scenes, which are results.
struct Gradients {
  const float* grad_images;
  const float* grad_inverse_depths;  // null if not drawn
  SceneGradient grad_gaussians;      // of all scenes
  float* grad_background;            // [scenes][3], or null
};

// Computes the gradients of scenes from dLoss/dimage, one scene after another.
class BackwardPass {
 public:
  BackwardPass(const Job& job, const Gradients& gradients)
      : batch_(job.batch),
        kernels_(job.kernels),
        state_(job.state),
        gradients_(gradients),
        parts_(batch_.views * band_count(batch_)),
        moments_(batch_.views * batch_.gaussians) {}

  // Each member of the team uses one of the scratches.
  void operator()(int64_t scene, Team& team, Scratch* scratches) {
    Stopwatch watch(batch_.seconds);
    const int64_t bands = band_count(batch_);
    team.each(chunk_count(batch_), [&](int64_t chunk, int) { clear(chunk); });
    team.each(batch_.views * bands, [&](int64_t task, int member) {
      draw(scene, task / bands, task % bands, scratches[member], parts_[task]);
    });
    watch.lap(kRasteriseBackward);
    team.each(batch_.views, [&](int64_t view, int) { sum_bands(view); });
    if (gradients_.grad_background) sum_background(scene);
    watch.lap(kCollect);
    team.each(chunk_count(batch_), [&](int64_t chunk, int) { project(scene, chunk); });
    watch.lap(kProjectBackward);
  }

 private:
  // The results of one band of one view, besides the moments of splats on this band only.
  struct Part {
    Buffer<PartialMoments> partials{0};
    int64_t partial_count = 0;
    double grad_background[3];
  };

  // Gaussians that are not drawn have no moments.
  void clear(int64_t chunk) {
    const int64_t first = chunk * kChunk, last = std::min(first + kChunk, batch_.gaussians);
    for (int64_t view = 0; view < batch_.views; ++view)
      std::fill_n(moments_.data() + view * batch_.gaussians + first, last - first, Moments{});
  }

  void draw(int64_t scene, int64_t view, int64_t number, Scratch& scratch, Part& part) {
    const int64_t render = scene * batch_.views + view;
    const Band band = make_band(batch_, number);
    const int64_t size = (band.last_row - band.first_row + 1) * (int64_t)band.stride;
    const int64_t offset = render * plane_size(batch_) + number * band_size(batch_);
    const float* grad_depths = gradients_.grad_inverse_depths;
    const Planes planes{{scratch.plane(0), scratch.plane(1), scratch.plane(2), grad_depths ? scratch.plane(3) : nullptr},
                        scratch.plane(4),
                        state_.stopped + offset};
    float* behind = scratch.plane(5);
    std::copy_n(state_.transmittance + offset, size, planes.transmittance);
    std::fill_n(behind, size, 0.0f);
    const int64_t pixels = batch_.height * batch_.width, first = (int64_t)band.first_row * batch_.width;
    for (int c = 0; c < 3; ++c)
      part.grad_background[c] =
          load_gradient(band, gradients_.grad_images + (3 * render + c) * pixels + first, planes.channels[c],
               planes.transmittance, batch_.background[3 * (render / batch_.views) + c], behind);
    if (grad_depths)
      load_gradient(band, grad_depths + render * pixels + first, planes.channels[3], planes.transmittance, 0, behind);

    const List list = state_.list(batch_, render, number);
    part.partials = Buffer<PartialMoments>(list.count);
    part.partial_count = kernels_.rasterise_backward(list, band, scratch.blocks(), planes, behind,
                                                   moments_.data() + view * batch_.gaussians, part.partials.data());
  }

  // Copies one channel of dLoss/dimage into its plane, with zeros beyond the image's width, and adds the background's
  // part to `behind`; returns dLoss/dbackground.
  static double load_gradient(const Band& band, const float* grad_image, float* channel, const float* transmittance,
                     float background, float* behind) {
    double grad_background = 0;
    for (int row = band.first_row; row <= band.last_row; ++row) {
      float grad_row[kLanes] = {};
      for (int x = 0; x < band.width; ++x) {
        const float grad_pixel = grad_image[x] * transmittance[x];
        channel[x] = grad_image[x];
        behind[x] += grad_pixel * background;
        grad_row[x % kLanes] += grad_pixel;
      }
      std::fill(channel + band.width, channel + band.stride, 0.0f);
      for (const float grad_column : grad_row) grad_background += grad_column;
      grad_image += band.width;
      channel += band.stride;
      transmittance += band.stride;
      behind += band.stride;
    }
    return grad_background;
  }

  // Adds the partial moments of a view's bands, always in this order.
  void sum_bands(int64_t view) {
    Moments* moments = moments_.data() + view * batch_.gaussians;
    const int64_t bands = band_count(batch_);
    for (int64_t band = 0; band < bands; ++band) {
      Part& part = parts_[view * bands + band];
      for (int64_t i = 0; i < part.partial_count; ++i) {
        float* sums = (float*)&moments[part.partials[i].index];
        const float* more = (const float*)&part.partials[i].moments;
        for (int k = 0; k < kMomentCount; ++k) sums[k] += more[k];
      }
    }
  }

  void sum_background(int64_t scene) {
    for (int c = 0; c < 3; ++c) {
      double sum = 0;
      for (const Part& part : parts_) sum += part.grad_background[c];
      gradients_.grad_background[3 * scene + c] = (float)sum;
    }
  }

  void project(int64_t scene, int64_t chunk) {
    const int64_t first = chunk * kChunk, last = std::min(first + kChunk, batch_.gaussians);
    const int64_t g = scene * batch_.gaussians;
    const SceneGradient& all = gradients_.grad_gaussians;
    const SceneGradient out{all.means + 3 * g, all.scales + 3 * g, all.rotations + 4 * g, all.opacities + g,
                            all.sh + 3 * batch_.coefficients * g};
    kernels_.project_backward(make_scene(batch_, scene), &state_.cameras[scene * batch_.views], (int)batch_.views,
                              make_frame(batch_), moments_.data(), first, last, out);
  }

  const Batch& batch_;
  const Kernels& kernels_;
  const State& state_;
  const Gradients& gradients_;
  // For the current scene:
  std::vector<Part> parts_;       // [views][bands]
  Buffer<Moments> moments_;       // [views][gaussians]
};

// Runs a ForwardPass or BackwardPass over all scenes; `arguments` follow the job in its constructor.
template <class Pass, class... Arguments>
void run_scenes(const Job& job, const Arguments&... arguments) {
  const Batch& batch = job.batch;
  const int64_t most = std::max(batch.scenes, batch.views * band_count(batch));  // more would be idle
  const int threads = (int)std::max<int64_t>(1, std::min(batch.threads, most));
  std::vector<Scratch> scratches;
  scratches.reserve(threads);
  while ((int)scratches.size() < threads) scratches.emplace_back(batch);
  // Whole rounds of scenes run one on each thread; all threads share each of the remaining scenes.
  const int64_t whole = batch.scenes - batch.scenes % threads;
  std::vector<Pass> passes;
  passes.reserve(whole ? threads : 1);
  while (passes.size() < passes.capacity()) passes.emplace_back(job, arguments...);
  Team team(job.progress, batch.parallel, threads), single(job.progress);
  team.each(whole, [&](int64_t scene, int member) { passes[member](scene, single, &scratches[member]); });
  for (int64_t scene = whole; scene < batch.scenes; ++scene) passes[0](scene, team, scratches.data());
}

inline Status run_forward(const Batch& batch, const Kernels& kernels, float* images, float* inverse_depths) {
  Progress progress(batch.interpreter);
  const State state(batch);
  if (!set_cameras(batch, state)) return native::kRefused;
  try {
    run_scenes<ForwardPass>(Job{batch, kernels, state, progress}, images, inverse_depths);
  } catch (const std::bad_alloc&) {
    return native::kOutOfMemory;
  }
  return progress.status();
}

inline Status run_backward(const Batch& batch, const Kernels& kernels, const Gradients& gradients) {
  Progress progress(batch.interpreter);
  const State state(batch);
  try {
    run_scenes<BackwardPass>(Job{batch, kernels, state, progress}, gradients);
  } catch (const std::bad_alloc&) {
    return native::kOutOfMemory;
  }
  return progress.status();
}

}  // namespace splat
