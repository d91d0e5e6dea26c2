// Types that the kernels and their driver share.  Plain data only: kernels must not instantiate templates of this file
// or of the standard library, since the linker could keep the copy for a newer instruction set and use it for all.
#pragma once

#include <cstdint>

namespace splat {

constexpr float kAlphaMin = 1.0f / 255.0f;         // smaller contributions are skipped
constexpr float kAlphaMax = 0.99f;
constexpr float kTransmittanceMin = 1e-4f;         // a pixel stops before the Gaussian that would take it below
constexpr double kDilation = 0.3;                  // px^2
constexpr double kCompensationMin = 0.000025;      // of the squared antialiasing factor
constexpr double kFrustumMargin = 1.3;             // bound on |x/z| in the Jacobian, in units of tan(fov/2)
constexpr double kSmallestDistance = 1e-30;        // in divisions by the distance from the camera
constexpr double kDepthEpsilon = 1e-7;             // in the perspective division, as in diff-gaussian-rasterization

constexpr int kLanes = 8;                          // Gaussians, rows or pixels handled at a time
constexpr int kCutAhead = 32;                      // splats cut into blocks before the first of them is drawn
constexpr int kFetchAhead = 8;                     // splats prefetched before they are cut
constexpr int32_t kNeverStopped = INT32_MAX;

// One scene; arrays are contiguous, Gaussian by Gaussian.
struct Scene {
  const float* means;      // [n][3]
  const float* scales;     // [n][3]
  const float* rotations;  // [n][4]
  const float* opacities;  // [n]
  const float* sh;         // [n][coefficients][3]
  int64_t n;
  int coefficients;        // 1, 4, 9 or 16
};

// Gradients of one scene, laid out like Scene.
struct SceneGradient {
  float* means;
  float* scales;
  float* rotations;
  float* opacities;
  float* sh;
};

struct Camera {
  double rotation[3][3];  // world -> camera
  double translation[3];
  double focal[2];        // px
  double principal[2];    // px, in indices: the middle of the first pixel is 0
  double limit[2];        // bound on |x/z|, |y/z| in the Jacobian
  double centre[3];       // of projection, in the world
};

struct Frame {
  int height, width;
  double near_plane;
  bool antialiasing, any_opacity;
};

// A Gaussian projected to the image, in one cache line.  Its exponent at (x, y), with dx = x - u, dy = y - v, is
//   -1/2 (precision (dx - shear dy)^2 + row_precision dy^2),
// the Cholesky form of the inverse covariance.  It is precise for needle shapes, where the usual three terms cancel.
struct Splat {
  double u, v;                   // px, indices
  double shear;
  float precision;               // 1/px^2
  float row_precision;           // 1/px^2
  float reach;                   // alpha >= kAlphaMin where -2 * exponent <= reach
  float opacity;                 // times the antialiasing factor
  float channels[4];             // red, green, blue, inverse depth
  int16_t first_row, last_row;   // on the image
  int32_t index;                 // in the scene
};
static_assert(sizeof(Splat) == 64, "a splat fills one cache line");

// The fields of a splat by which it is sorted and listed.  They are stored apart, so that sorting reads little memory.
struct SortRecord {
  double depth;
  int16_t first_row, last_row;  // equal to the splat's
};

// Splats on a band, nearest first: all[positions[0]], all[positions[1]], ...
struct List {
  const Splat* all;
  const int32_t* positions;
  int64_t count;
};

// Sums over the pixels of one splat; X = dLoss/dalpha * exp(exponent), d = distance from the row's maximum.
struct Moments {
  float x, x_d, x_dd, x_dy, x_dydy, x_ddy;
  float channels[4];  // sums of dLoss/dimage * weight
};
constexpr int kMomentCount = 10;
static_assert(sizeof(Moments) == kMomentCount * sizeof(float), "the kernels take a record for an array");

// The sums over one band of a splat that overlaps several.
struct PartialMoments {
  Moments moments;
  int32_t index;  // in the scene
};

// Consecutive rows of an image, which one thread draws.
struct Band {
  int first_row, last_row;
  int width, stride;
};

// Blocks of eight pixels of one row under one splat, as a structure of arrays of `capacity` + kLanes elements.
struct Blocks {
  int32_t* pixel;   // the first pixel, in the planes
  float* offset;    // its distance from the row's maximum, px
  float* row_term;  // exponent at the row's maximum
  float* dy;        // px
  int64_t capacity;
};

// State of the pixels of one band, in planes with rows of `stride` floats.
struct Planes {
  float* channels[4];     // red, green, blue, inverse depth; the last is null if no depth is requested
  float* transmittance;   // forward: negative where the pixel has stopped
  int32_t* stopped;       // position in the list of the splat before which the pixel stopped
};

// The functions that are compiled once per instruction set.
struct Kernels {
  const char* name;
  // Projects the Gaussians first..last-1 of a scene to `views` cameras.  The splats on the image of view v are written
  // in the scene's order from splats[v * n + first] on, and their sort records likewise; counts[v] is their number.
  // Returns whether all numbers of the Gaussians are finite and, unless frame.any_opacity, all opacities in [0, 1].
  bool (*project)(const Scene&, const Camera*, int views, const Frame&, int64_t first, int64_t last, Splat* splats,
                  SortRecord* sort_records, int64_t* counts);
  // Draws the splats of a list, front to back.
  void (*rasterise)(const List&, const Band&, const Blocks&, const Planes&);
  // Traverses the same list back to front.  Channels contain dLoss/dimage, `behind` contains dLoss/dimage * background *
  // transmittance; `behind` and transmittance are overwritten.  Writes moments[Gaussian] of splats on this band only,
  // and `partials` of the others, at most list.count; returns their number.
  int64_t (*rasterise_backward)(const List&, const Band&, const Blocks&, const Planes&, float* behind,
                                Moments* moments, PartialMoments* partials);
  // Computes the gradients of the Gaussians first..last-1 of a scene seen by `views` cameras, from
  // moments[view * n + Gaussian].
  void (*project_backward)(const Scene&, const Camera*, int views, const Frame&, const Moments* moments,
                           int64_t first, int64_t last, const SceneGradient&);
};

}  // namespace splat
