# The images of docker-compose.yml and deploy/kubernetes: a target for each program, with what it needs and no more.
# What builds a virtual environment is not in them.
FROM python:3.13-slim-trixie AS build
RUN python -m venv --without-pip /venv
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM build AS receiver-packages
COPY requirements/receiver.txt .
RUN pip --python /venv/bin/python install --requirement receiver.txt && /venv/bin/python -m compileall -q -j 0 /venv/lib

FROM build AS standin-packages
COPY requirements/standin.txt .
RUN pip --python /venv/bin/python install --requirement standin.txt && /venv/bin/python -m compileall -q -j 0 /venv/lib

FROM build AS pipeline-packages
COPY requirements/pipeline.txt .
RUN pip --python /venv/bin/python install --requirement pipeline.txt && /venv/bin/python -m compileall -q -j 0 /venv/lib

# The project's name and version, by which the pipeline calls itself when it asks CoinGecko.
FROM build AS project
COPY pyproject.toml README.md LICENSE /source/
RUN pip install --no-deps --target /project /source

FROM python:3.13-slim-trixie AS base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.licenses=Apache-2.0
RUN useradd --uid 10001 --no-create-home coins
WORKDIR /app
COPY deploy/healthy.py .
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app PYTHONUNBUFFERED=1
# Passes signals on to the program and reaps orphans, in compose and in Kubernetes alike.
ENTRYPOINT ["dumb-init", "--single-child", "--"]

# Each target ends with its files readable for its user, whatever umask the checkout was made with.
FROM base AS receiver
COPY --from=receiver-packages /venv /venv
COPY sql sql
COPY receiver receiver
RUN python -m compileall -q . && chmod -R a+rX .
USER 10001
CMD ["python", "-m", "receiver"]

FROM base AS standin
COPY --from=standin-packages /venv /venv
COPY stack/__init__.py stack/
COPY stack/standin stack/standin
RUN python -m compileall -q . && chmod -R a+rX .
USER 10001
CMD ["python", "-m", "stack.standin", "--host=0.0.0.0", "--port=8080"]

FROM base AS pipeline
COPY --from=pipeline-packages /venv /venv
COPY sql sql
COPY --from=project /project .
COPY workspace.yaml .
COPY stack/dagster.yaml /dagster/
COPY coin_pipeline coin_pipeline
RUN python -m compileall -q . && chmod -R a+rX . /dagster && install --directory --owner=coins /dagster/storage
ENV DAGSTER_HOME=/dagster
USER 10001
CMD ["python", "-m", "coin_pipeline.code_server"]
