# One image for every service of docker-compose.yml; each service says which program it runs.
FROM python:3.11-slim AS build
WORKDIR /app
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --no-compile -r requirements.txt \
    && /venv/bin/python -m compileall -q -j 0 /venv/lib

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 coins && install -d -o coins /dagster /dagster/storage
WORKDIR /app
COPY --from=build /venv /venv
COPY coin_pipeline coin_pipeline
COPY receiver receiver
COPY sql sql
COPY stack stack
COPY workspace.yaml .
COPY dagster.yaml /dagster/
RUN /venv/bin/python -m compileall -q coin_pipeline receiver sql stack
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 DAGSTER_HOME=/dagster
USER coins
