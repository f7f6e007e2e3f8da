#!/usr/bin/env bash
# Make a Debian with PostgreSQL, Redis and Airflow, from which the stand-ins for the stack's images are built.
# rootfs.sh DIRECTORY AIRFLOW_VERSION REQUIREMENT…: what deploy/airflow/Dockerfile installs beyond Airflow.
# Needs root, debootstrap and the package indexes that this machine uses; containers need no network afterwards.
set -euo pipefail

root=$1 version=$2
shift 2
# Python is to use the new root's own modules.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

debootstrap --variant=minbase \
    --include=adduser,busybox-static,ca-certificates,curl,dumb-init,netcat-openbsd,procps,python3,python3-venv \
    bookworm "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Behind an inspecting proxy, this machine's authorities have signed what packages come from.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

export DEBIAN_FRONTEND=noninteractive VERSION=$version REQUIREMENTS=$*
chroot "$root" bash -euc '
    # As the images of both servers have it.
    groupadd --gid 999 server
    useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql server

    apt-get -qq update
    apt-get -qq install --no-install-recommends postgresql-common >/dev/null
    sed -ri "s/^#?create_main_cluster.*/create_main_cluster = false/" /etc/postgresql-common/createcluster.conf
    apt-get -qq install --no-install-recommends postgresql-15 redis-server redis-tools >/dev/null
    apt-get clean

    install -d -o 999 -g 999 -m 1777 /var/lib/postgresql/data
    install -d -o 999 -g 999 -m 3777 /var/run/postgresql
    install -d -o 999 -g 999 /data
    useradd --uid 50000 --gid 0 --home-dir /home/airflow --create-home --shell /bin/bash airflow
    install -d -o 50000 -g 0 -m 0775 /opt/airflow /opt/airflow/dags /opt/airflow/logs /wheels
    ln -sf python3 /usr/bin/python
'
chroot "$root" su airflow --preserve-environment -c '
    set -eu
    export HOME=/home/airflow VIRTUAL_ENV=/home/airflow/.local PATH=/home/airflow/.local/bin:$PATH
    cd ~
    python -m venv .local
    pip install --quiet --no-cache-dir uv
    uv pip install --quiet --no-cache "apache-airflow[async,celery,fab,postgres,redis]==$VERSION" "celery<5.7"
    # pip finds these without an index.
    pip download --quiet --no-cache-dir --dest /wheels $REQUIREMENTS
'
