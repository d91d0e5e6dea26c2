// One layer of the network: y = scale * (conv(dropout(silu(norm(x)))) + bias + residual), every part optional.
// Tensors are float32 and channels last: x is [images][height][width][inputs], y [images][height][width][outputs].
// The gradient of a tensor t, dLoss/dt, is called grad_t.
#pragma once

#include <cstdint>

namespace layers {

constexpr int64_t kMaxChannels = 4096;  // of x; kernels keep a few numbers a channel on the stack

// Sizes and addresses of a layer.  Mirrored field by field in library.py: all members take eight bytes.
struct Layer {
  int64_t images, height, width, inputs, outputs;
  int64_t kernels;    // index of available_kernels
  int64_t side;       // of the convolution's kernel: 1 or 3; 0 is no convolution, and outputs = inputs
  int64_t groups;     // of the norm; 0 is no norm, silu or dropout
  int64_t silu;       // whether silu follows the norm
  int64_t drop_below; // dropout zeroes an element whose 32 random bits are below this; 0 is no dropout
  uint64_t key;       // of the random bits
  double keep_scale;  // factor of the elements that dropout keeps
  double eps, scale;
  const float *x, *gain, *offset;  // the latter two of the norm, [inputs]
  const float *weight, *bias;      // [outputs][side][side][inputs]; [outputs] or nullptr
  const float* residual;           // like y, or nullptr
  float* moments;  // [images][groups][2]: mean and 1 / standard deviation, saved for the backward pass
  // Input of the convolution with its border, [images][height + 2p][width + 2p][inputs], p = side / 2, saved for the
  // backward pass.  It is y itself without a convolution, and x itself with neither norm nor border.
  float* conv_input;
};

// Gradients of a layer; nullptr for those not needed.  A layer with a norm needs grad_x.
struct Gradients {
  const float* grad_y;
  float *grad_x, *grad_gain, *grad_offset, *grad_weight, *grad_bias, *grad_residual;
};

// Working memory of one backward call.
struct Scratch {
  const float* weights;  // packed for the convolution of grad_y that gives the gradient of conv_input
  // scale * grad_y with a border of zeros, per image [height + 2p][width + 2p][outputs]; or grad_y itself
  float* padded_grad;
  int64_t padded_grad_step;  // from one image to the next; 0 if all images use the same memory in turn
  float *grad_gain, *grad_offset;  // [images][inputs]: each image's part
  float* grad_bias;                // [images][outputs]
};

// The operators that are not layers, for one image.  Sizes and addresses are those of a Layer; height and width are
// those of x.  Backward passes add to grad_x where `add` is set, else write it.
struct PerImageOps {
  void (*avg_pool2)(const Layer&, int64_t image, float* y);
  void (*upsample2)(const Layer&, int64_t image, float* y);
  void (*concat)(const Layer&, int64_t image, const float* other, float* y);
  void (*self_attention)(const Layer&, int64_t image, float* scratch, float* y);
  void (*avg_pool2_backward)(const Layer&, int64_t image, const float* grad_y, float* grad_x, bool add);
  void (*upsample2_backward)(const Layer&, int64_t image, const float* grad_y, float* grad_x, bool add);
  // The gradient of `count` channels of a concatenation, from channel `first` on.
  void (*split_backward)(const Layer&, int64_t image, const float* grad_y, int64_t first, int64_t count, float* grad,
                         bool add);
  void (*self_attention_backward)(const Layer&, int64_t image, float* scratch, const float* grad_y, float* grad_x);
  int64_t (*attention_scratch)(const Layer&);  // numbers of `scratch`
  void (*accumulate)(int64_t image, int64_t size, const float* from, float* to);
  // z: scratch of `count` numbers
  void (*depth_cross_attention)(const Layer&, int64_t image, int64_t count, const float* numbers, float* z, float* y);
  void (*depth_cross_attention_backward)(const Layer&, int64_t image, const float* grad_y, float* grad_x, bool add,
                                         float* partials);
  int64_t (*depth_cross_attention_partials)(const Layer&);  // numbers in `partials` per image
};

// The code for one instruction set.
struct Kernels {
  const char* name;
  int64_t lanes;  // numbers of channels must be multiples of this
  int64_t (*points)(const Layer&);  // numbers in one packed kernel: its taps, or the points of their transform
  void (*pack_forward)(const Layer&, float* packed);   // [points][inputs][outputs]
  void (*pack_backward)(const Layer&, float* packed);  // [points][outputs][inputs]
  void (*forward)(const Layer&, const float* weights, int64_t image, float* y);
  void (*backward)(const Layer&, const Gradients&, const Scratch&, int64_t image);
  // Adds one image's part of grad_weight to `sums`, for the tiles first <= t < last.  If weights are transformed,
  // finish_weight_gradient converts the sums to grad_weight; else the sums are grad_weight itself.
  void (*weight_gradient)(const Layer&, const Scratch&, int64_t image, int64_t first, int64_t last, float* sums);
  int64_t (*tiles)(const Layer&);
  void (*finish_weight_gradient)(const Layer&, const float* sums, float* grad_weight);
  PerImageOps ops;
};

}  // namespace layers
