# The program with its pipelines and models, at the locked versions. Two stages, so that no build tool stays in the image.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md ./
RUN python -m venv /opt/streamapp
COPY streamapp ./streamapp
COPY pipelines ./pipelines
COPY models ./models
COPY schemas ./schemas
RUN /opt/streamapp/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/streamapp /opt/streamapp
RUN useradd --system --create-home --home-dir /var/lib/streamapp --uid 10001 streamapp
USER streamapp
# Compiled kernels are cached where the user may write; without a cache each start compiles for seconds.
ENV PATH=/opt/streamapp/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/var/lib/streamapp/.numba
WORKDIR /var/lib/streamapp
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["streamapp"]
CMD ["worker"]
