# splatsweep on NVIDIA GPUs, with both CUDA rasterisers.  From the repository's root:
#
#   docker build --file docker/cuda.Dockerfile --tag splatsweep:cuda .
#   docker run --rm --gpus all --shm-size 8g --volume "$PWD/runs:/runs" splatsweep:cuda run sweep/presets/paper.yaml
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04

# Ubuntu keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH

WORKDIR /splatsweep
COPY constraints.txt pyproject.toml README.md LICENSE ./
# The compute capabilities to compile for: A100, consumer Ampere, Ada, H100.
ARG TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0"
ARG MAX_JOBS=4
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cu128 torch torchvision setuptools wheel
# Both compile against the torch above, hence no isolation.  The first is for research only: see its licence.
# hadolint ignore=DL3059
RUN TORCH_CUDA_ARCH_LIST="$TORCH_CUDA_ARCH_LIST" MAX_JOBS="$MAX_JOBS" pip install --no-cache-dir --no-build-isolation \
    "git+https://github.com/graphdeco-inria/diff-gaussian-rasterization.git@59f5f77e3ddbac3ed9db93ec2cfe99ed6c5d121d" \
    "git+https://github.com/nerfstudio-project/gsplat.git@0b4dddf04cb687367602c01196913cde6a743d70"
COPY sweep sweep
COPY model model
COPY jobs jobs
COPY results results
RUN pip install --no-cache-dir --constraint constraints.txt --editable .

RUN userdel --remove ubuntu && useradd --uid 1000 --create-home researcher && mkdir /runs && chown researcher /runs
USER 1000
ENV SPLATSWEEP_HOME=/runs RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
VOLUME /runs
ENTRYPOINT ["splatsweep"]
CMD ["--help"]
