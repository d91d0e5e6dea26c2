# An MLflow tracking server that can keep its store in PostgreSQL; see compose.yaml.
FROM python:3.11-slim-bookworm

WORKDIR /server
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt mlflow 'psycopg[binary]>=3.2'

RUN useradd --uid 1000 --create-home researcher && mkdir /runs && chown researcher /runs
USER 1000
ENV MLFLOW_DISABLE_TELEMETRY=true
EXPOSE 5000
ENTRYPOINT ["mlflow", "server"]
