#!/usr/bin/env bash
# Starts a Docker engine for the tests when none answers, and ends it again.
#   .ci/docker.sh start [FOLDER]   prints nothing when an engine answers already; else its pid is in FOLDER/dockerd.pid
#   .ci/docker.sh stop  [FOLDER]   ends only the engine that `start` started
set -euo pipefail

act=${1:?start or stop}
folder=${2:-${TMPDIR:-/tmp}/selfheal-ci-docker}
pid_file=$folder/dockerd.pid
log=$folder/dockerd.log

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

case $act in
  start)
    answers && exit 0
    command -v dockerd >/dev/null || { echo "dockerd is not installed: apt-get install docker.io" >&2; exit 1; }
    mkdir -p "$folder"
    setsid nohup dockerd --pidfile "$folder/engine.pid" >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    for _ in $(seq 1 60); do
      answers && exit 0
      kill -0 "$(cat "$pid_file")" 2>/dev/null || break
      sleep 0.5
    done
    echo "dockerd did not come up; its last lines:" >&2
    tail -n 20 "$log" >&2
    exit 1
    ;;
  stop)
    [[ -f $pid_file ]] || exit 0
    pid=$(cat "$pid_file")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 1 60); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.5
    done
    rm -f "$pid_file"
    ;;
  *)
    echo "usage: .ci/docker.sh start|stop [FOLDER]" >&2
    exit 2
    ;;
esac
