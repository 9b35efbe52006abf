# The image of every role: `docker run mailyard` is `mailyard up`; a role is named behind it.
# Nothing in it runs as root, and its root may be read-only: what is kept lies in /data.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY tools tools
COPY src src
RUN python -m venv /opt/mailyard \
    && /opt/mailyard/bin/pip install -q --no-cache-dir --require-hashes -r requirements/runtime.txt \
    && /opt/mailyard/bin/pip install -q --no-cache-dir --require-hashes -r requirements/fleet.txt \
    && /opt/mailyard/bin/python tools/assets.py \
    && /opt/mailyard/bin/pip install -q --no-cache-dir --no-deps . \
    && find /opt/mailyard -name __pycache__ -prune -exec rm -rf {} + \
    && /opt/mailyard/bin/python -m compileall -q /opt/mailyard/lib

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --create-home mailyard
COPY --from=build /opt/mailyard /opt/mailyard
ENV PATH=/opt/mailyard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MAILYARD_DATA=/data \
    MAILYARD_HOST=0.0.0.0 \
    MAILYARD_SMTP_HOST=0.0.0.0 \
    MAILYARD_ALIVE_FILE=/tmp/alive \
    MAILYARD_LOG_FORMAT=json
USER 10001:10001
VOLUME /data
EXPOSE 8025 2525 2587 2465
STOPSIGNAL SIGTERM
# Whatever the role: each touches the file for as long as its event loop turns.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD \
    ["sh", "-c", "test -n \"$(find /tmp/alive -newermt '60 seconds ago')\""]
ENTRYPOINT ["mailyard"]
CMD ["up"]
