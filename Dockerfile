# What every node of a cluster runs, and what trains on one machine: Ray's own image, with the
# versions that the tests pass with.
#
#   docker build --build-arg DEVICE=cpu --tag YOUR-REGISTRY/heliograph:0.1.0-cpu .
#   docker build --build-arg DEVICE=gpu --tag YOUR-REGISTRY/heliograph:0.1.0-gpu .
#
# Ray's image has what `ray up` and KubeRay expect of one: bash, rsync, wget, a user called ray.
ARG DEVICE=cpu
FROM rayproject/ray:2.60.0-py311-${DEVICE}
ARG DEVICE

# Made by ray, because WORKDIR would make it root's.
RUN mkdir --parents /home/ray/heliograph
WORKDIR /home/ray/heliograph

# Dependencies first: they change less often than the code. Without a GPU, torch's CPU build, where
# pip's index has it.
COPY --chown=ray constraints.txt pyproject.toml LICENSE README.md ./
RUN if [ "$DEVICE" = cpu ]; then pip install --no-cache-dir "torch==2.13.0+cpu" || true; fi
RUN pip install --no-cache-dir --constraint constraints.txt ".[aws]"

COPY --chown=ray heliograph heliograph
COPY --chown=ray model model
COPY --chown=ray pipeline pipeline
COPY --chown=ray jobs jobs
COPY --chown=ray recipes recipes
RUN pip install --no-cache-dir --no-deps --editable .

# RAY_AUTH_MODE is the cluster's to set, alike on all nodes.
ENV RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONUNBUFFERED=1
USER ray
CMD ["heliograph", "--help"]
