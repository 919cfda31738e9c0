# One image for the Prefect worker, training jobs and the predictor: same code, other command.
#   worker:    prefect worker start --pool POOL
#   job:       python -m deployments.job --store ROOT --job ORDER    (any program of model/)
#   predictor: python -m model.serve --release DIR          (the default)
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG TORCH=2.13.0
ARG UV=0.13.9
# The CPU build for the predictor; leave it empty for a base with CUDA.
ARG TORCH_INDEX=
# "[vqa]" for the profile vqa.
ARG EXTRAS=
ENV PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python3 -m venv /venv \
 && /venv/bin/python -m pip install --no-cache-dir --no-deps ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} "torch==${TORCH}" \
 && /venv/bin/python -m pip install --no-cache-dir "uv==${UV}"
ENV PATH=/venv/bin:${PATH} VIRTUAL_ENV=/venv
COPY flows flows
COPY tasks tasks
COPY deployments deployments
COPY policy policy
COPY model model
COPY prefect.yaml ./
RUN uv pip install --no-cache -c constraints.txt ".${EXTRAS}" \
 && useradd --create-home --uid 1000 arr-coc
USER 1000
ENV ARR_COC_HOST=0.0.0.0
CMD ["python", "-m", "model.serve", "--release", "/release"]
