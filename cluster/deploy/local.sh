# bash cluster/deploy/local.sh up [NODES] [CPUS]     and to stop it: bash cluster/deploy/local.sh down
#
# A guarded Ray cluster on this machine: a head node and, if NODES is 2 or more, further nodes beside it (each is a
# raylet of its own: for trying things out; one node does the same work). CPUS is per node; all of them by default.
# The dashboard listens on 127.0.0.1:8265; DASHBOARD_HOST opens it wider, which is refused without a token. Everything
# else that Ray opens listens on all addresses: keep a firewall in front of this machine.
# `down` stops every Ray process of this user on this machine, as `ray stop` does.
set -euo pipefail

usage() { sed -n 's/^# \(bash .*\)/usage: \1/p' "$0" >&2; exit 2; }
number() { [[ $1 =~ ^[1-9][0-9]*$ ]] || { echo "error: $2 must be 1 or more, got $1" >&2; exit 2; }; }

host=${DASHBOARD_HOST:-127.0.0.1}
port=${RAY_PORT:-6379}
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
    for taken in "$port:a cluster (stop it with: bash cluster/deploy/local.sh down)" "8265:a program (end it first)"; do
      if (exec 3<> "/dev/tcp/127.0.0.1/${taken%%:*}") 2> /dev/null; then
        echo "error: port ${taken%%:*} is in use by ${taken#*:}; nothing was started" >&2
        exit 2
      fi
    done
    umask 077 # the token is for this user alone
    if [[ $RAY_AUTH_MODE == token && -z ${RAY_AUTH_TOKEN:-} ]]; then
      ray get-auth-token --generate > /dev/null
      chmod 600 "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
    fi
    ray start --head --port "$port" --dashboard-host "$host" --dashboard-port 8265 --num-cpus "$cpus" \
      --object-store-memory 1000000000 --disable-usage-stats > /dev/null
    # A folder of its own for each node: in a shared one, the second node would delete the working directory of a job that
    # the first has unpacked and its driver runs in, to unpack it anew.
    for ((node = 2; node <= nodes; node++)); do
      ray start --address "127.0.0.1:$port" --num-cpus "$cpus" --object-store-memory 1000000000 \
        --temp-dir "${TMPDIR:-/tmp}/ray-$UID-node$node" > /dev/null
    done
    echo "$nodes node(s) of $cpus CPUs; dashboard http://127.0.0.1:8265 (its token: ray get-auth-token)"
    echo "python -m memscore.submit -- python -m memscore.estimate"
    echo "for Ray's own commands: export RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_ADDRESS=http://127.0.0.1:8265"
    ;;
  down) ray stop > /dev/null && echo "stopped" ;;
  *) usage ;;
esac
