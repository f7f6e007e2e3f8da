#!/bin/sh
# A password on the command line would be visible to every user: Redis reads it from standard input.
set -eu
exec redis-server "${REDIS_CONFIG:-/usr/local/etc/redis/redis.conf}" "$@" - <<END
requirepass ${REDISCLI_AUTH:?}
END
