// What a call is given, and what follows from it.
#pragma once

#include "splat.hpp"
#include "team.hpp"

#include <algorithm>
#include <vector>

namespace splat {

// Mirrored field by field in native.py: all members take eight bytes.
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
  float* transmittance;     // [scenes][views][plane], plane = splat_plane_size(height, width)
  int32_t* stopped;         // [scenes][views][plane]
  const Interpreter* interpreter;  // whose lock the calling thread holds; may be null
  double* seconds;          // may be null; [kStages], to which is added what the calling thread spent
};

constexpr int64_t kChunk = 32 * kLanes;  // Gaussians that a thread projects at a time
constexpr int64_t kBandRowsMin = 32, kBandsMax = 8;

inline int64_t chunk_count(const Batch& b) { return (b.gaussians + kChunk - 1) / kChunk; }

inline int64_t stride(int64_t width) { return width + kLanes; }
inline int64_t plane_size(int64_t height, int64_t width) { return height * stride(width); }

// Bands depend on the image alone, so that sums over their pixels do not depend on threads.
inline int64_t band_rows(const Batch& b) { return std::max(kBandRowsMin, (b.height + kBandsMax - 1) / kBandsMax); }
inline int64_t band_count(const Batch& b) { return (b.height + band_rows(b) - 1) / band_rows(b); }

inline Band make_band(const Batch& b, int64_t band) {
  const int64_t first = band * band_rows(b);
  return Band{(int)first, (int)(std::min(first + band_rows(b), b.height) - 1), (int)b.width, (int)stride(b.width)};
}

inline Frame make_frame(const Batch& b) {
  return Frame{(int)b.height, (int)b.width, b.near_plane, b.antialiasing != 0};
}

inline Scene make_scene(const Batch& b, int64_t scene) {
  const int64_t g = scene * b.gaussians;
  return Scene{b.means + 3 * g,   b.scales + 3 * g,
               b.rotations + 4 * g, b.opacities + g,
               b.sh + 3 * b.coefficients * g, b.gaussians, (int)b.coefficients};
}

// centre = -R^-1 t, by cofactors: R need not be a rotation.
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

inline std::vector<Camera> make_cameras(const Batch& b) {
  std::vector<Camera> cameras;
  for (int64_t render = 0; render < b.scenes * b.views; ++render) cameras.push_back(make_camera(b, render));
  return cameras;
}

}  // namespace splat
