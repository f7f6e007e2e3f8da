#!/usr/bin/env bash
# Build the receivers of the end-to-end tests from Go modules: build.sh [program…], by default all but docker-compose,
# which only `make test-compose` needs, and otelcol-jsonfile, which only one test of `make test-long` does.
# What is there already is left alone. Needs Go (Debian's golang-go is enough) and the Go module proxy.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/airflow-provider-forge
programs=(actionlint compose-config otelcol prometheus promtool victoria-metrics)

# Without cgo no C compiler is needed. A Go that is older than what a module asks for fetches that one.
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=auto GOWORK=off

version_of() { awk -v name="$1" '$1 == name { print $2 }' "$here/versions.txt"; }

# Go before 1.21 cannot switch to another one by itself, but it can fetch one as a module, which it checks
# against Go's checksum database.
use_recent_go() {
    local version goroot module fetched
    if ! command -v go >/dev/null; then
        echo "Go is missing (Debian package golang-go)" >&2
        exit 1
    fi
    [[ -z $(go env GOTOOLCHAIN) ]] || return 0
    version=$(version_of go)
    goroot=$cache/go-$version
    if [[ ! -x $goroot/bin/go ]]; then
        module=golang.org/toolchain@v0.0.1-go$version.$(go env GOOS)-$(go env GOARCH)
        fetched=$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
        cp -r --no-preserve=mode "$fetched" "$work/go"
        # A module can hold neither programs nor other modules; later Gos put this right in the same way.
        chmod +x "$work"/go/bin/* "$work"/go/pkg/tool/*/*
        find "$work/go/src" -name _go.mod -execdir mv {} go.mod ';'
        mv -T "$work/go" "$goroot"
    fi
    PATH=$goroot/bin:$PATH
}

# With the processors and the extension that deploy/collector names. 0.161.0 is the last version of which all
# their modules can be had; of the exporter signalfx some could not, in 0.140.0, 0.150.0, 0.160.0 and 0.161.0.
build_otelcol() {
    build_collector "$1" otelcol <<END
receivers:
  - gomod: $core/receiver/otlpreceiver v$1
processors:
  - gomod: $core/processor/memorylimiterprocessor v$1
  - gomod: $contrib/processor/cumulativetodeltaprocessor v$1
  - gomod: $contrib/processor/deltatocumulativeprocessor v$1
  - gomod: $contrib/processor/filterprocessor v$1
  - gomod: $contrib/processor/transformprocessor v$1
exporters:
  - gomod: $core/exporter/debugexporter v$1
  - gomod: $core/exporter/otlphttpexporter v$1
extensions:
  - gomod: $contrib/extension/healthcheckextension v$1
END
}

# Its receiver cannot be had in the version of the other Collector.
build_otelcol-jsonfile() {
    build_collector "$1" otelcol-jsonfile <<END
receivers:
  - gomod: $contrib/receiver/otlpjsonfilereceiver v$1
exporters:
  - gomod: $core/exporter/otlphttpexporter v$1
END
}

core=go.opentelemetry.io/collector
contrib=github.com/open-telemetry/opentelemetry-collector-contrib

# build_collector VERSION PROGRAM, with its components from standard input.
build_collector() {
    {
        printf 'dist:\n  name: otelcol\n  output_path: generated\n'
        cat
    } >builder.yaml
    go run "$core/cmd/builder@v$1" --config=builder.yaml
    mv generated/otelcol "$2"
}

# As modules, version 3.16.0 is v0.316.0. Service discovery would be most of the program, and of the build.
build_prometheus() { build_package github.com/prometheus/prometheus "v0.${1/./}" cmd/prometheus remove_all_sd; }
build_promtool() { build_package github.com/prometheus/prometheus "v0.${1/./}" cmd/promtool remove_all_sd; }

# Of the library that `docker compose` reads files with; its own command takes no variables in this version.
build_compose-config() {
    cp "$here/compose_config.go" main.go
    go mod init compose-config
    go get "github.com/compose-spec/compose-go/v2@v$1"
    go build -mod=mod -ldflags="-s -w" -o compose-config .
}

# No receiver, but built in the same way: the linter of the workflows in .github.
build_actionlint() { build_package github.com/rhysd/actionlint "v$1" cmd/actionlint; }

# The plugin of the client, which Debian does not have.
build_docker-compose() {
    build_package github.com/docker/compose/v2 "v$1" cmd
    mv cmd docker-compose
}

build_victoria-metrics() {
    build_package github.com/VictoriaMetrics/VictoriaMetrics "v$1" app/victoria-metrics
}

# Required by a module of our own: `go install` refuses modules that replace others.
build_package() {
    local module=$1 version=$2 package=$3 tags=${4:-}
    go mod init receivers
    go get "$module@$version"
    go build -mod=mod -tags="$tags" -ldflags="-s -w" -o "${package##*/}" "$module/$package"
}

finish() {
    local status=$?
    if [[ $status != 0 && -f $work/log ]]; then
        tail -n 50 "$work/log" >&2
    fi
    rm -rf "$work"
}

mkdir -p "$cache"
# Beside the finished programs, so that a program is moved there whole or not at all.
work=$(mktemp -d "$cache/building.XXXXXX")
trap finish EXIT
for program in "${@:-${programs[@]}}"; do
    version=$(version_of "$program")
    target=$cache/$program-$version/$program
    if [[ -x $target ]]; then
        continue
    fi
    echo "Building $program $version"
    use_recent_go
    mkdir "$work/$program" && cd "$work/$program"
    "build_$program" "$version" >"$work/log" 2>&1
    mkdir -p "${target%/*}"
    mv -f "$program" "$target"
done
