# splatsweep on CPUs.  From the repository's root:
#
#   docker build --file docker/cpu.Dockerfile --tag splatsweep:cpu .
#   mkdir -p runs
#   docker run --rm --shm-size 2g --volume "$PWD/runs:/runs" splatsweep:cpu run sweep/presets/quick.yaml
#
# The image's user, whose id is 1000, writes to runs/.  Without mkdir, Docker makes that folder for root alone; a user
# of another id permits it with: chmod a+rwx runs
#
# So that results record the commit:  --build-arg COMMIT="$(git describe --always --abbrev=40 --exclude '*' --dirty)"
FROM python:3.11-slim-bookworm

# Debian keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /splatsweep
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY sweep sweep
COPY model model
COPY jobs jobs
COPY results results
# The CPU builds of torch and torchvision: a tenth of the size of those with CUDA.
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu torch torchvision \
    && pip install --no-cache-dir --constraint constraints.txt --editable .

RUN useradd --uid 1000 --create-home researcher && mkdir /runs && chown researcher /runs
USER 1000
ARG COMMIT=""
ENV SPLATSWEEP_COMMIT=$COMMIT
ENV SPLATSWEEP_HOME=/runs RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
VOLUME /runs
ENTRYPOINT ["splatsweep"]
CMD ["--help"]
