// The arguments of a call, and the sizes, cameras and state that follow from them.
#pragma once

#include "../threads.hpp"
#include "splat.hpp"

#include <algorithm>
#include <cmath>

namespace splat {

using native::Interpreter;
using native::Parallel;
using native::Progress;
using native::Status;
using native::Team;

// Mirrored field by field in library.py: all members take eight bytes.
struct Batch {
  int64_t scenes, views, gaussians, coefficients, height, width, antialiasing;
  int64_t any_opacity;  // if 0, opacities outside [0, 1] are refused
  int64_t threads;
  int64_t kernels;  // index of available_kernels
  double near_plane;
  const float *means, *scales, *rotations, *opacities, *sh;  // [scenes][gaussians][...]
  const float* background;  // [scenes][3]
  const double *world_to_camera, *focal, *principal;  // [scenes][views][...]; the backward pass ignores them
  void* state;              // saved by forward for backward: rasteriser_state_size bytes, beginning on a cache line
  Parallel parallel;        // runs the work on several threads; may be null
  const Interpreter* interpreter;  // its lock is held by the calling thread; may be null
  double* seconds;          // [kStages], to which the calling thread adds its time; may be null
};

constexpr int64_t kChunk = 32 * kLanes;  // Gaussians that a thread projects at a time
constexpr int64_t kBandRowsMin = 16, kBandRows = 32, kBandsMax = 8;

inline int64_t chunk_count(const Batch& b) { return (b.gaussians + kChunk - 1) / kChunk; }

inline int64_t stride(int64_t width) { return width + kLanes; }

// Rows of a band.  They depend on the batch only, so sums over pixels do not depend on the number of threads.  A splat
// on two bands costs twice, so bands are small only where threads would else be idle: for a single small image.
inline int64_t band_rows(const Batch& b) {
  const bool single = b.scenes * b.views == 1;
  const int64_t rows = single ? std::clamp((b.height + 1) / 2, kBandRowsMin, kBandRows) : kBandRows;
  return std::max(rows, (b.height + kBandsMax - 1) / kBandsMax);
}
inline int64_t band_count(const Batch& b) { return (b.height + band_rows(b) - 1) / band_rows(b); }

inline int64_t band_size(const Batch& b) { return band_rows(b) * stride(b.width); }
inline int64_t plane_size(const Batch& b) { return band_count(b) * band_size(b); }

inline Band make_band(const Batch& b, int64_t band) {
  const int64_t first = band * band_rows(b);
  return Band{(int)first, (int)(std::min(first + band_rows(b), b.height) - 1), (int)b.width, (int)stride(b.width)};
}

inline Frame make_frame(const Batch& b) {
  return Frame{(int)b.height, (int)b.width, b.near_plane, b.antialiasing != 0, b.any_opacity != 0};
}

inline Scene make_scene(const Batch& b, int64_t scene) {
  const int64_t g = scene * b.gaussians;
  return Scene{b.means + 3 * g,   b.scales + 3 * g,
               b.rotations + 4 * g, b.opacities + g,
               b.sh + 3 * b.coefficients * g, b.gaussians, (int)b.coefficients};
}

// centre = -R^-1 t, by cofactors, since R need not be a rotation.
inline void find_centre(Camera& c) {
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

inline Camera make_camera(const Batch& b, int64_t render) {
  const double* p = b.world_to_camera + 16 * render;
  const double size[2] = {(double)b.width, (double)b.height};
  Camera c;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[i][j] = p[4 * i + j];
    c.translation[i] = p[4 * i + 3];
  }
  for (int i = 0; i < 2; ++i) {
    c.focal[i] = b.focal[2 * render + i];
    c.principal[i] = b.principal[2 * render + i] - 0.5;
    c.limit[i] = kFrustumMargin * size[i] / (2 * c.focal[i]);
  }
  find_centre(c);
  return c;
}

// Whether all numbers are finite, including the centre, which a singular matrix does not have.
inline bool is_valid(const Camera& c) {
  bool valid = true;
  for (int i = 0; i < 3; ++i) {
    for (const double x : c.rotation[i]) valid &= std::isfinite(x);
    valid &= std::isfinite(c.translation[i]) & std::isfinite(c.centre[i]);
  }
  for (int i = 0; i < 2; ++i) valid &= std::isfinite(c.focal[i]) & (c.focal[i] > 0) & std::isfinite(c.principal[i]);
  return valid;
}

// The state that forward saves for backward, in one block of memory.
struct State {
  explicit State(const Batch& b) {
    const int64_t renders = b.scenes * b.views, plane = plane_size(b);
    cameras = take<Camera>(b, renders);
    splats = take<Splat>(b, renders * b.gaussians);
    lists = take<int32_t>(b, renders * band_count(b) * b.gaussians);
    listed = take<int64_t>(b, renders * band_count(b));
    transmittance = take<float>(b, renders * plane);
    stopped = take<int32_t>(b, renders * plane);
  }

  Camera* cameras;       // [scenes][views]
  Splat* splats;         // [scenes][views][gaussians], splats on the image, by chunks of Gaussians, with gaps between
  int32_t* lists;        // [scenes][views][bands][gaussians], indices of the splats on a band, nearest first
  int64_t* listed;       // [scenes][views][bands], lengths of the lists
  float* transmittance;  // [scenes][views][plane]
  int32_t* stopped;      // [scenes][views][plane]
  int64_t size = 0;      // bytes

  // The splats on one band of one render.
  List list(const Batch& b, int64_t render, int64_t band) const {
    const int64_t number = render * band_count(b) + band;
    return List{splats + render * b.gaussians, lists + number * b.gaussians, listed[number]};
  }

 private:
  template <class T>
  T* take(const Batch& b, int64_t count) {
    constexpr int64_t kLine = 64;
    T* taken = (T*)((char*)b.state + size);
    size += (count * (int64_t)sizeof(T) + kLine - 1) / kLine * kLine;
    return taken;
  }
};

// Fills in the state's cameras; returns false if one of them, or the background, is not finite.
inline bool set_cameras(const Batch& b, const State& state) {
  bool valid = true;
  for (int64_t render = 0; render < b.scenes * b.views; ++render)
    valid &= is_valid(state.cameras[render] = make_camera(b, render));
  for (int64_t i = 0; i < 3 * b.scenes; ++i) valid &= std::isfinite(b.background[i]);
  return valid;
}

}  // namespace splat
