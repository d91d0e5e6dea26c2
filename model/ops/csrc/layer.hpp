// One layer of the network: y = scale * (conv(dropout(silu(norm(x)))) + bias + residual), every part optional.
// All is float32 and channels last: x is [images][height][width][inputs], y the same with `outputs`.
#pragma once

#include <cstdint>

namespace layer {

constexpr int64_t kMaxChannels = 4096;  // of x; kernels keep a few numbers a channel on the stack

// What both calls are given.  Mirrored field by field in native.py: all members take eight bytes.
struct Layer {
  int64_t images, height, width, inputs, outputs, threads;
  int64_t kernels;    // which of available_kernels
  int64_t side;       // of the convolution's kernel: 1 or 3; 0 is no convolution, and outputs = inputs
  int64_t groups;     // of the norm; 0 is no norm, silu or dropout
  int64_t silu;       // whether silu follows the norm
  int64_t drop_below; // dropout zeroes an element whose 32 random bits are below this; 0 is no dropout
  uint64_t key;       // of the random bits
  double keep_scale;  // what dropout multiplies the other elements by
  double eps, scale;
  const float *x, *gain, *offset;  // the latter two of the norm, [inputs]
  const float *weight, *bias;      // [outputs][side][side][inputs]; [outputs] or nullptr
  const float* residual;           // like y, or nullptr
  float* moments;  // [images][groups][2]: mean and 1 / standard deviation.  Forward leaves them for backward
  // What the convolution reads, [images][height + 2p][width + 2p][inputs], p = side / 2.  Forward leaves it for
  // backward.  It is y itself where there is no convolution, and x where neither norm nor border change that.
  float* active;
};

// Where backward writes dLoss/d...; nullptr where that is not wanted.  by_x is a must where there is a norm.
struct Gradients {
  const float* by_y;
  float *by_x, *by_gain, *by_offset, *by_weight, *by_bias, *by_residual;
};

// What the parts of one backward call share.
struct Scratch {
  const float* weights;  // packed for the convolution that takes dLoss/dy to dLoss/dactive
  float* spread;         // [height + 2p][width + 2p][outputs] an image: scale * by_y in a border of zeros; or by_y itself
  int64_t spread_step;   // from one image's to the next; 0 where they take turns
  float *by_gain, *by_offset;  // [images][inputs]: each image's share
  float* by_bias;              // [images][outputs]
};

// The steps that are not layers, of one image; they take the sizes and addresses of a Layer.
struct Between {
  void (*halve)(const Layer&, int64_t image, float* y);
  void (*repeat)(const Layer&, int64_t image, float* y);
  void (*join)(const Layer&, int64_t image, const float* other, float* y);
  void (*attend)(const Layer&, int64_t image, float* scratch, float* y);
  void (*halve_backward)(const Layer&, int64_t image, const float* by_y, float* by_x, bool add);
  void (*repeat_backward)(const Layer&, int64_t image, const float* by_y, float* by_x, bool add);
  void (*part_backward)(const Layer&, int64_t image, const float* by_y, int64_t first, int64_t count, float* by,
                        bool add);
  void (*attend_backward)(const Layer&, int64_t image, float* scratch, const float* by_y, float* by_x);
  int64_t (*attention_scratch)(const Layer&);
  void (*accumulate)(int64_t image, int64_t size, const float* from, float* to);
  void (*read)(const Layer&, int64_t image, int64_t count, const float* numbers, float* z, float* y);  // z: scratch
  void (*read_backward)(const Layer&, int64_t image, const float* by_y, float* by_x, bool add, float* shares);
  int64_t (*reading_shares)(const Layer&);
};

// The code for one kind of processor.
struct Kernels {
  const char* name;
  int64_t lanes;  // numbers of channels must be multiples of this
  int64_t (*points)(const Layer&);  // numbers that stand for one kernel: its taps, or those of their transform
  void (*pack_forward)(const Layer&, float* packed);   // [points][inputs][outputs]
  void (*pack_backward)(const Layer&, float* packed);  // [points][outputs][inputs]
  void (*forward)(const Layer&, const float* weights, int64_t image, float* y);
  void (*backward)(const Layer&, const Gradients&, const Scratch&, int64_t image);
  // Adds to the sums that become dLoss/dweight, in tiles first <= t < last of them, what one image contributes.  They
  // are dLoss/dweight itself, unless weights are transformed: then finish_weights makes it of them.
  void (*weigh)(const Layer&, const Scratch&, int64_t image, int64_t first, int64_t last, float* sums);
  int64_t (*tiles)(const Layer&);
  void (*finish_weights)(const Layer&, const float* sums, float* by_weight);
  Between between;
};

}  // namespace layer
