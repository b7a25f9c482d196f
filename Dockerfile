# One edgecache node. Everything that it keeps is below /data.
#
#     buildah bud --format docker -t edgecache .
#     podman run -p 8080:8080 -v edgecache:/data edgecache --origin https://index.example --listen 0.0.0.0:8080
#
# The base needs python3 (3.11 or newer) with the venv module, and nothing else. What pip needs where you build (an index of
# your own, a private CA) is the base's, or mounted: docs/DEPLOY.md.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
COPY . /src
# Run once as root: twistd notes its plugins beside them, where the node's own user cannot write.
# Everything is of the release that was tried, and is what it was then (docs/SECURITY.md, Dependencies).
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/conf/lock/build.txt \
    && /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels /src \
    && python3 -m venv /opt/edgecache \
    && /opt/edgecache/bin/pip install --no-cache-dir --require-hashes -r /src/conf/lock/run.txt \
    && /opt/edgecache/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
    && /opt/edgecache/bin/twistd --help >/dev/null

FROM ${BASE_IMAGE}
COPY --from=build /opt/edgecache /opt/edgecache
# The others are for compose.yml: a new volume takes over who owns the directory.
RUN mkdir /data /certs /wheels && chown 10001:10001 /data /certs /wheels
ENV PATH=/opt/edgecache/bin:$PATH HOME=/data PYTHONUNBUFFERED=1
USER 10001:10001
# The default data directory is ./edgecache-data.
WORKDIR /data
VOLUME /data
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/healthz', timeout=4)"]
# A container that was killed starts again: with -n no pidfile is kept, and the lock on /data decides who runs.
ENTRYPOINT ["twistd", "-n", "edgecache"]
CMD ["--listen", "0.0.0.0:8080"]
