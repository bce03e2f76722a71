#!/bin/sh
# Start Redis or a Sentinel with a configuration that it may rewrite, to remember the master after a failover.
# That state is in /data. The configuration in /etc/redis is read after it, and takes precedence.
#
#   start.sh redis NAME [MASTER]     without MASTER it is the master, until a failover; it refuses writes beyond
#                                    REDIS_MAXMEMORY, if that is set
#   start.sh sentinel NAME MASTER
set -eu
kind=$1 name=$2 master=${3:-}
kept=/data/$kind.conf

if [ ! -s "$kept" ]; then
    {
        case $kind in
            redis) [ -z "$master" ] || echo "replicaof $master 6379" ;;
            sentinel)
                echo "sentinel resolve-hostnames yes"
                echo "sentinel announce-ip $name"
                echo "sentinel monitor tidings $master 6379 2"
                ;;
        esac
        echo "# Made by start.sh; the rest is written by the server."
    } >"$kept"
fi

case $kind in
    redis)
        exec redis-server "$kept" --dir /data --replica-announce-ip "$name" --include /etc/redis/redis.conf \
            ${REDIS_MAXMEMORY:+--maxmemory "$REDIS_MAXMEMORY"}
        ;;
    sentinel)
        exec redis-server "$kept" --sentinel --dir /data --include /etc/redis/sentinel.conf
        ;;
esac
