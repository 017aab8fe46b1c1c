# The images of docker-compose.yml and deploy/kubernetes: one base, and a target for each program.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.txt .
# This stage's pip installs into the virtual environment, so that the images have none there.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --no-compile --requirement requirements.txt \
    && /venv/bin/python -m compileall -q -j 0 /venv/lib

FROM python:3.11-slim-bookworm AS base
RUN useradd --uid 10001 --create-home coins
WORKDIR /app
COPY --from=build /venv /venv
COPY sql sql
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app PYTHONUNBUFFERED=1
# Passes signals on to the program and reaps orphans, in compose and in Kubernetes alike.
ENTRYPOINT ["dumb-init", "--single-child", "--"]

FROM base AS receiver
COPY receiver receiver
RUN python -m compileall -q .
USER 10001
CMD ["python", "-m", "receiver"]

FROM base AS standin
COPY stack stack
RUN python -m compileall -q .
USER 10001
CMD ["python", "-m", "stack.cli", "standin", "--host", "0.0.0.0"]

FROM base AS pipeline
COPY coin_pipeline coin_pipeline
COPY pyproject.toml workspace.yaml .
COPY stack/dagster.yaml /dagster/
RUN python -m compileall -q . && install --directory --owner=coins /dagster /dagster/storage
ENV DAGSTER_HOME=/dagster
USER 10001
CMD ["python", "-m", "coin_pipeline.code_server"]
