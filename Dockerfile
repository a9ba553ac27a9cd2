# The images of Fullfunnel; docs/deployment.md says how they are built, run and tested.
#   serve      answers requests: no torch, no compiler, no pip
#   batch      the same with pyarrow: `fullfunnel score`, and Arrow over HTTP
#   serve-gpu  the same as serve on onnxruntime-gpu, with CUDA from packages
#   train      trains; torch for CPU, or for CUDA with `--build-arg TORCH=cuda`
# A torch wheel that is at hand is taken with `--build-context wheels=FOLDER`.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG TORCH=cpu
# All times in the layers: the same sources give the same layers.
ARG SOURCE_DATE_EPOCH=1767225600

# ---------------------------------------------------------------- what builds; nothing of it is in an image

FROM scratch AS wheels

FROM ${BASE_IMAGE} AS build
ARG SOURCE_DATE_EPOCH
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
WORKDIR /build
COPY deploy/container/install-locked deploy/container/lighten deploy/container/plant deploy/container/settle /usr/local/bin/

FROM build AS serve-packages
COPY requirements/serve.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip install-locked requirements/serve.lock && lighten && plant

FROM build AS batch-packages
COPY requirements/batch.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip install-locked requirements/batch.lock && lighten && plant

FROM build AS serve-gpu-packages
COPY requirements/serve-gpu.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip install-locked requirements/serve-gpu.lock && plant

# PyPI has no torch for CPU on Linux: it comes from the folder that is given as `wheels`, else from PyTorch's own index, pinned by
# its version and not by a hash.
FROM build AS train-packages-cpu
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY requirements/train.lock requirements/
RUN --mount=type=bind,from=wheels,target=/wheels --mount=type=cache,target=/root/.cache/pip \
    if ls /wheels/torch-"$TORCH_VERSION"*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; \
    else from="--index-url $TORCH_INDEX_URL"; fi; \
    BEFORE="$from torch==$TORCH_VERSION" install-locked requirements/train.lock && plant

FROM build AS train-packages-cuda
COPY requirements/train-cuda.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip install-locked requirements/train-cuda.lock && plant

FROM train-packages-${TORCH} AS train-packages

FROM build AS tools
COPY requirements/image.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/tools && /opt/tools/bin/pip install --no-deps --require-hashes -r requirements/image.lock

# Fullfunnel itself, in a tree of its own: a change of it is one small layer. Debian's Python comes without headers.
FROM tools AS package
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    test -e "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || headers=python3-dev; \
    apt-get update -qq && apt-get install -qq --no-install-recommends gcc libc6-dev $headers >/dev/null
COPY pyproject.toml README.md LICENSE ./
COPY contract contract
COPY models models
COPY training training
COPY service service
COPY cli cli
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . && python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-deps --no-index --no-compile --no-warn-script-location \
    --root /tree dist/*.whl
COPY deploy/container/healthcheck.py /tree/opt/
COPY runs /runs/opt/runs
RUN settle /tree && settle /runs

# Lists of what is in each image (CycloneDX).
FROM package AS lists
COPY deploy/container/list_packages.py /usr/local/bin/

FROM lists AS serve-list
RUN --mount=type=bind,from=serve-packages,source=/tree/opt/venv,target=/opt/venv \
    python /usr/local/bin/list_packages.py /list && settle /list

FROM lists AS batch-list
RUN --mount=type=bind,from=batch-packages,source=/tree/opt/venv,target=/opt/venv \
    python /usr/local/bin/list_packages.py /list && settle /list

FROM lists AS serve-gpu-list
RUN --mount=type=bind,from=serve-gpu-packages,source=/tree/opt/venv,target=/opt/venv \
    python /usr/local/bin/list_packages.py /list && settle /list

FROM lists AS train-list
RUN --mount=type=bind,from=train-packages,source=/tree/opt/venv,target=/opt/venv \
    python /usr/local/bin/list_packages.py /list && settle /list

# ---------------------------------------------------------------- what runs

FROM ${BASE_IMAGE} AS runtime
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,source=deploy/container,target=/mnt python -B /mnt/prepare.py
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fullfunnel" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["fullfunnel"]

# A container has an address of its own, which others reach where its port is published. Whoever publishes it says so with
# FULLFUNNEL_INSECURE=true, as on any other host.
FROM runtime AS serving
ENV FULLFUNNEL_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/healthcheck.py"]
CMD ["serve", "/bundle"]

FROM serving AS batch
LABEL org.opencontainers.image.description="Scores tables with a Fullfunnel bundle, and serves it, Arrow included"
COPY --from=batch-packages /tree /
COPY --from=package /tree /
COPY --from=batch-list /list /

FROM serving AS serve-gpu
LABEL org.opencontainers.image.description="Serves a Fullfunnel bundle on an NVIDIA GPU"
ENV FULLFUNNEL_PROVIDER=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/venv/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/venv/lib/python3.11/site-packages/nvidia/cudnn/lib
COPY --from=serve-gpu-packages /tree /
COPY --from=package /tree /
COPY --from=serve-gpu-list /list /

FROM runtime AS train
LABEL org.opencontainers.image.description="Trains Fullfunnel bundles"
COPY --from=train-packages /tree /
COPY --from=package /tree /
COPY --from=package /runs /
COPY --from=train-list /list /

# The last one is what `docker build .` makes.
FROM serving AS serve
LABEL org.opencontainers.image.description="Serves a Fullfunnel bundle: pCTR, pCVR and pCTCVR of ranked candidates"
COPY --from=serve-packages /tree /
COPY --from=package /tree /
COPY --from=serve-list /list /
