# Two programs in one image: /rowtide (the daemon, the stock API and the tools)
# and /webnode (the example web node). Beside them are only the authorities for TLS
# and a static wget for health checks; there is no shell.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# Without cgo the binaries need no C library, so that the final image may be empty.
ENV CGO_ENABLED=0
ARG VERSION=dev
RUN mkdir /out \
 && go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /out/rowtide ./cmd/rowtide \
 && go build -trimpath -ldflags "-s -w" -o /out/webnode ./examples/webnode

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=busybox:1.37.0-musl /bin/wget /bin/wget
COPY --from=build /out/rowtide /out/webnode /
USER 65532:65532
ENTRYPOINT ["/rowtide"]
CMD ["--help"]
