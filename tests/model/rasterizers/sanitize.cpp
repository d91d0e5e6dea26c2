// Draws scenes from a file, forward and backward, with every kind of kernels and with one thread and three; built with
// sanitizers, which stop it at the first fault.  Usage: sanitize FILE.

#include "rasteriser.cpp"

#include <cstdio>
#include <cstdlib>

namespace {

template <class T>
std::vector<T> read(std::FILE* file, int64_t count) {
  std::vector<T> values(count);  // of exactly this size: one element too far is a fault
  if (std::fread(values.data(), sizeof(T), count, file) != (size_t)count) std::exit(2);
  return values;
}

// Everything a call reads and writes.
struct Scenes {
  splat::Batch batch{};
  bool depth;
  std::vector<std::vector<float>> inputs;  // means, scales, rotations, opacities, sh, background
  std::vector<double> cameras[3];  // world_to_camera, focal, principal
};

bool next(std::FILE* file, Scenes& s) {
  int64_t header[8];
  if (std::fread(header, sizeof header, 1, file) != 1) return false;
  splat::Batch& b = s.batch;
  b = splat::Batch{};
  b.scenes = header[0], b.views = header[1], b.gaussians = header[2], b.coefficients = header[3];
  b.height = header[4], b.width = header[5], b.antialiasing = header[6], s.depth = header[7] != 0;
  b.near_plane = read<double>(file, 1)[0];
  const int64_t n = b.scenes * b.gaussians;
  s.inputs.clear();
  for (const int64_t size : {3 * n, 3 * n, 4 * n, n, 3 * b.coefficients * n, 3 * b.scenes})
    s.inputs.push_back(read<float>(file, size));
  const int64_t renders = b.scenes * b.views;
  for (int i = 0; i < 3; ++i) s.cameras[i] = read<double>(file, (i ? 2 : 16) * renders);
  b.means = s.inputs[0].data(), b.scales = s.inputs[1].data(), b.rotations = s.inputs[2].data();
  b.opacities = s.inputs[3].data(), b.sh = s.inputs[4].data(), b.background = s.inputs[5].data();
  b.world_to_camera = s.cameras[0].data(), b.focal = s.cameras[1].data(), b.principal = s.cameras[2].data();
  return true;
}

// All that one forward and backward pass gives, one after another.
std::vector<float> draw(Scenes& s) {
  splat::Batch& b = s.batch;
  const int64_t renders = b.scenes * b.views, pixels = b.height * b.width;
  struct alignas(64) Line {
    char bytes[64];
  };
  std::vector<Line> state(rasteriser_state_size(&b) / sizeof(Line));
  b.state = state.data();
  std::vector<float> images(3 * renders * pixels), depths(renders * pixels);
  if (rasteriser_forward(&b, images.data(), s.depth ? depths.data() : nullptr) != native::kDone) std::exit(3);

  std::vector<std::vector<float>> gradients;
  for (const auto& input : s.inputs) gradients.emplace_back(input.size());
  if (rasteriser_backward(&b, images.data(), s.depth ? depths.data() : nullptr, gradients[0].data(), gradients[1].data(),
                     gradients[2].data(), gradients[3].data(), gradients[4].data(), gradients[5].data()) !=
      native::kDone)
    std::exit(3);
  std::vector<float> all = images;
  if (s.depth) all.insert(all.end(), depths.begin(), depths.end());
  for (const auto& gradient : gradients) all.insert(all.end(), gradient.begin(), gradient.end());
  return all;
}

}  // namespace

int main(int, char** arguments) {
  std::FILE* file = std::fopen(arguments[1], "rb");
  if (!file) return 2;
  Scenes scenes;
  int drawn = 0;
  for (; next(file, scenes); ++drawn)
    for (int kernels = 0; rasteriser_kernels(kernels); ++kernels) {
      scenes.batch.kernels = kernels;
      scenes.batch.threads = 1;
      const std::vector<float> alone = draw(scenes);
      scenes.batch.threads = 3;
      const std::vector<float> shared = draw(scenes);
      if (std::memcmp(alone.data(), shared.data(), alone.size() * sizeof(float)) != 0) return 4;
    }
  std::fclose(file);
  std::printf("%d\n", drawn);
}
