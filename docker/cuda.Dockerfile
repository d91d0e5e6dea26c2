# splatsweep on NVIDIA GPUs, with both CUDA rasterisers.  From the repository's root:
#
#   docker build --file docker/cuda.Dockerfile --tag splatsweep:cuda .
#   mkdir -p runs
#   docker run --rm --gpus all --shm-size 8g --volume "$PWD/runs:/runs" splatsweep:cuda run sweep/presets/paper.yaml
#
# The image's user, whose id is 1000, writes to runs/.  Without mkdir, Docker makes that folder for root alone; a user
# of another id permits it with: chmod a+rwx runs
#
# CUDA's compiler is a package like torch's CUDA libraries, of the version that the pinned torch requires, so the two
# cannot differ.  CUDA 13 needs a driver of version 580 or later.
#
# So that results record the commit:  --build-arg COMMIT="$(git describe --always --abbrev=40 --exclude '*' --dirty)"
FROM python:3.11-slim-bookworm

# KubeRay's probes of its nodes need wget up to version 1.5.  Debian keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /splatsweep
COPY constraints.txt pyproject.toml README.md LICENSE ./
# The packages bring libraries for running, without the name that linkers look for.
ENV CUDA_HOME=/usr/local/lib/python3.11/site-packages/nvidia/cu13
RUN pip install --no-cache-dir --constraint constraints.txt \
    torch torchvision "cuda-toolkit[nvcc,cccl]==13.0.3" ninja setuptools wheel \
    && ln --symbolic libcudart.so.13 "$CUDA_HOME/lib/libcudart.so"

# The compute capabilities to compile for: A100, consumer Ampere, Ada, H100 and H200, consumer Blackwell.
ARG TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0;12.0"
ARG MAX_JOBS=4
# Branch dr_aa, the generation with antialiasing.  For research only: see its licence.
ARG DIFF_GAUSSIAN_RASTERIZATION=git+https://github.com/graphdeco-inria/diff-gaussian-rasterization.git@9c5c2028f6fbee2be239bc4c9421ff894fe4fbe0
# Both compile against the torch above, hence no isolation.  The first lacks an #include that GCC 13 wants; the second
# asks for C++17, which torch's headers no longer accept.
RUN NVCC_PREPEND_FLAGS="-include cstdint" NVCC_APPEND_FLAGS="-std=c++20" \
    pip install --no-cache-dir --constraint constraints.txt --no-build-isolation --no-binary gsplat \
    "$DIFF_GAUSSIAN_RASTERIZATION" "gsplat==1.5.3"

COPY sweep sweep
COPY model model
COPY jobs jobs
COPY results results
RUN pip install --no-cache-dir --constraint constraints.txt --editable .

RUN useradd --uid 1000 --create-home researcher && mkdir /runs && chown researcher /runs
USER 1000
ARG COMMIT=""
ENV SPLATSWEEP_COMMIT=$COMMIT
ENV SPLATSWEEP_HOME=/runs RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /runs
ENTRYPOINT ["splatsweep"]
CMD ["--help"]
