# syntax=docker/dockerfile:1

# Both programs in one small image, without a shell:
#
#   docker build -t walcache:local .
#   docker run --rm walcache:local proxy --help
#
# docker-compose.yml runs the whole system with it.

# The version is that of go.mod; it compiles here, for wherever the image is to run.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
ARG TARGETOS TARGETARCH
# Static, without paths of this machine in it, and by this toolchain alone.
ENV CGO_ENABLED=0 GOFLAGS=-trimpath GOTOOLCHAIN=local
# The source is mounted and not copied, with .git, so that the build is named by its
# revision (-buildvcs): that is the RELEASE by which a new build makes the answers of
# older ones stale, where nobody names one. Built from a changed tree, or from one
# without .git, it is named by a hash of the program.
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -buildvcs=auto -ldflags="-s -w" -o /out/ ./proxy ./backend

# Certificates, time zones, and a user who is not root: 65532, nonroot.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/ /usr/local/bin/
# Clients, the data service, operators.
EXPOSE 8001 8002 8003
# No health check: the image does not know which of the two it runs. Both have one
# that needs no shell: "proxy health", and "proxy health http://127.0.0.1:8002/healthz".
CMD ["proxy", "--help"]
