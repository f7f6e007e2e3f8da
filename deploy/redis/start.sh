#!/bin/sh
# On a command line the password would be there for all to see: Redis reads it from its standard input.
set -eu
exec redis-server "${REDIS_CONFIG:-/usr/local/etc/redis/redis.conf}" "$@" - <<END
requirepass ${REDISCLI_AUTH:?}
END
