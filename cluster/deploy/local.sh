# bash cluster/deploy/local.sh up [NODES] [CPUS]     and to stop it: bash cluster/deploy/local.sh down
#
# A guarded Ray cluster on this machine: a head node and, if NODES is 2 or more, further nodes beside it (each is a
# raylet of its own: for trying things out; one node does the same work). CPUS is per node; all of them by default.
# The dashboard listens on 127.0.0.1:8265; DASHBOARD_HOST opens it wider, which is refused without a token. Everything
# else that Ray opens listens on all addresses: keep a firewall in front of this machine.
# `down` stops what `up` started, and what that started; another Ray of this user goes on. It knows the processes by a
# variable in their environment, so that nothing is kept that a reboot, a reused pid or a second `up` could make false.
# Where RAY_PORT is set for `up`, set it for `down` too.
set -euo pipefail

usage() { sed -n 's/^# \(bash .*\)/usage: \1/p' "$0" >&2; exit 2; }
number() { [[ $1 =~ ^[1-9][0-9]*$ ]] || { echo "error: $2 must be 1 or more, got $1" >&2; exit 2; }; }

find_ray() { # in PATH, as in an activated environment, or in .venv of this clone
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  ray=$(command -v ray || true)
  [[ -n $ray ]] || ray=$here/.venv/bin/ray
  if [[ ! -x $ray ]]; then
    echo "error: there is no ray in PATH and no $ray; activate the environment that memscore is installed in" >&2
    exit 2
  fi
  export PATH="$(dirname "$ray"):$PATH" # Ray starts python from PATH
}
protect_token() { # as the commands do: a file that is missing is made, readable by this user alone
  PYTHONPATH=$here python3 -c 'from cluster.auth import protect_token; protect_token(make=True)' 2> /dev/null && return
  echo "error: the token cannot be written to ${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}; give another" \
    "RAY_AUTH_TOKEN_PATH, or make its folder writable" >&2
  exit 2
}
start_ray() { env "$mark" "$ray" start "$@" > /dev/null; }
list_own() { # pids whose environment has the mark, but for this script and what runs it
  local file pid
  for file in /proc/[0-9]*/environ; do
    pid=${file//[!0-9]/}
    [[ $pid != "$$" && -O /proc/$pid ]] || continue
    grep -qzx "$mark" "$file" 2> /dev/null || continue
    [[ $ancestors == *" $pid "* ]] || echo "$pid"
  done
}
list_ancestors() {
  local pid=$$ line
  while [[ ${pid:-0} -gt 1 ]]; do
    echo -n " $pid "
    line=$(cat "/proc/$pid/stat" 2> /dev/null) || break
    line=${line##*) }
    pid=$(cut -d ' ' -f 2 <<< "$line")
  done
}
stop_own() {
  if [[ ! -r /proc/self/environ ]]; then
    echo "error: this system has no /proc, which tells whose Ray is whose; ray stop stops all of this user" >&2
    exit 2
  fi
  local ancestors pids count=0 second
  ancestors=$(list_ancestors)
  pids=$(list_own)
  if [[ -z $pids ]]; then
    echo "nothing to stop: no cluster that local.sh up started is running (ray stop stops every Ray of this user)"
    return
  fi
  count=$(wc -w <<< "$pids")
  for ((second = 0; second < 20; second++)); do # new ones may have been started meanwhile
    # shellcheck disable=SC2086 # words
    kill "-$([[ $second -lt 10 ]] && echo TERM || echo KILL)" $pids 2> /dev/null || true
    sleep 1
    pids=$(list_own)
    [[ -n $pids ]] || { echo "stopped $count processes of the cluster that local.sh up started"; return; }
  done
  echo "error: these processes do not end: $pids" >&2
  exit 1
}

host=${DASHBOARD_HOST:-127.0.0.1}
port=${RAY_PORT:-6379}
mark=MEMSCORE_LOCAL_CLUSTER=$UID:$port # in the environment of all that `up` starts
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS

case ${1:-} in
  up)
    nodes=${2:-1} cpus=${3:-$(nproc)}
    number "$nodes" NODES
    number "$cpus" CPUS
    if [[ $RAY_AUTH_MODE != token && $host != 127.* && $host != localhost ]]; then
      echo "error: a dashboard on $host with RAY_AUTH_MODE=$RAY_AUTH_MODE lets whoever reaches it run code here;" \
        "unset RAY_AUTH_MODE, or leave out DASHBOARD_HOST and use an SSH tunnel" >&2
      exit 2
    fi
    for taken in "$port:a cluster (if up started it: bash cluster/deploy/local.sh down)" "8265:a program (end it first)"; do
      if (exec 3<> "/dev/tcp/127.0.0.1/${taken%%:*}") 2> /dev/null; then
        echo "error: port ${taken%%:*} is in use by ${taken#*:}; nothing was started" >&2
        exit 2
      fi
    done
    find_ray
    umask 077
    if [[ $RAY_AUTH_MODE == token && -z ${RAY_AUTH_TOKEN:-} ]]; then protect_token; fi
    start_ray --head --port "$port" --dashboard-host "$host" --dashboard-port 8265 --num-cpus "$cpus" \
      --object-store-memory 1000000000 --disable-usage-stats
    # A folder of its own for each node: in a shared one, the second node would delete the working directory of a job that
    # the first has unpacked and its driver runs in, to unpack it anew.
    for ((node = 2; node <= nodes; node++)); do
      start_ray --address "127.0.0.1:$port" --num-cpus "$cpus" --object-store-memory 1000000000 \
        --temp-dir "${TMPDIR:-/tmp}/ray-$UID-node$node"
    done
    echo "$nodes node(s) of $cpus CPUs; dashboard http://127.0.0.1:8265 (its token: ray get-auth-token)"
    echo "python -m memscore.submit -- python -m memscore.estimate"
    echo "for Ray's own commands: export RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_ADDRESS=http://127.0.0.1:8265"
    ;;
  down) stop_own ;;
  *) usage ;;
esac
