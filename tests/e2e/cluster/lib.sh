# What the scripts of the cluster share: where things are, whether it runs, and what is said. Sourced, not run.
# shellcheck shell=bash
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=${VUMI_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or VUMI_CACHE}/.cache}/vumi}
home=$cache/cluster       # everything below is made by these scripts
images=$home/images       # archives, named by what is in them
store=$home/store         # containerd's folder with these images in it, from which each cluster takes a copy
run=$home/run             # the running cluster; inside the sandbox it is /run/cluster
kubeconfig=$run/kubeconfig

# The exit code for "this machine cannot run it", which is counted as a skipped test.
readonly CANNOT=77

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { say "$@"; exit 3; }

# Tenths of a second since some moment.
now() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 100000)); }
since() { local t=$(($(now) - $1)); echo "$((t / 10)).$((t % 10)) s"; }

binary() { "$root/scripts/kubernetes" path "$1"; }

# When a process began: with it an id that was given again is not taken for the old process.
begun() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # After the name, which may hold blanks and is in brackets.
  echo "${stat##*) }" | cut -d ' ' -f 20
}

# The id of the sandbox, if it runs.
sandbox_pid() {
  local pid start
  read -r pid start 2>/dev/null <"$run/sandbox" || return 1
  [ "$(begun "$pid")" = "$start" ] || return 1
  echo "$pid"
}

# Runs a command on the network of the sandbox, with this machine's files. `exec` keeps signals and the exit code.
on_its_network() { exec nsenter --net="/proc/$1/ns/net" -- "${@:2}"; }

# kubectl for the cluster that is used: the one of KUBECONFIG, else ours.
cluster_kubectl() {
  if [ -n "${KUBECONFIG:-}" ]; then
    local program
    program=$(command -v kubectl) || program=$(binary kubectl)
    [ -x "$program" ] || die "no kubectl: install one, or run scripts/kubernetes build kubectl"
    exec "$program" "$@"
  fi
  local pid
  pid=$(sandbox_pid) || die "no cluster is running: make cluster-up starts one"
  on_its_network "$pid" "$run/kubectl" --kubeconfig "$kubeconfig" "$@"
}

# The plugin of kubectl that this source tree makes, for the same cluster.
cluster_plugin() {
  local program pid profile=${VUMI_E2E_PROFILE:-dev}
  program=${CARGO_TARGET_DIR:-$root/target}/${profile/#dev/debug}/kubectl-vumi
  [ -x "$program" ] || die "$program is not there: cargo build -p kubectl-vumi"
  [ -z "${KUBECONFIG:-}" ] || exec "$program" "$@"
  pid=$(sandbox_pid) || die "no cluster is running: make cluster-up starts one"
  export KUBECONFIG=$kubeconfig
  on_its_network "$pid" "$program" "$@"
}

# The mount points of the cgroup hierarchies: several with version 1, one with version 2.
hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $3, $2 }' /proc/self/mounts; }

# A group of our own in every hierarchy, so that no other kubelet's is touched and all of it can be removed.
make_cgroup() {
  local type at group controller
  while read -r type at; do
    mkdir -p "$at/$1"
    if [ "$type" = cgroup2 ]; then
      # From the top to ours to the pods: each has what the one above hands on, which beside version 1 is nothing.
      for group in "$at" "$at/$1"; do
        for controller in $(cat "$group/cgroup.controllers"); do
          echo "+$controller" >"$group/cgroup.subtree_control" || true
        done
      done
    elif [ -e "$at/cpuset.cpus" ]; then
      cat "$at/cpuset.cpus" >"$at/$1/cpuset.cpus"
      cat "$at/cpuset.mems" >"$at/$1/cpuset.mems"
    fi
  done < <(hierarchies)
}

# The kernel lets go of a group a moment after its last process ended.
remove_cgroup() {
  local at left
  [[ $1 == vumi-e2e-* ]] || return 0
  for _ in {1..100}; do
    left=""
    while read -r _ at; do
      [ -d "$at/$1" ] || continue
      find "$at/$1" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
    done < <(hierarchies)
    [ -n "$left" ] || return 0
    sleep 0.1
  done
  say "cgroup folders named $1 are left: some process of the cluster still runs"
  return 1
}

# Ends the cluster, however far it came, by the id that it wrote down.
end_cluster() {
  local pid
  if pid=$(sandbox_pid); then
    # --kill-child takes everything inside along: the first process of a PID namespace ends all others.
    kill -9 "$pid"
    while sandbox_pid >/dev/null; do sleep 0.05; done
  fi
  if [ -e "$run/cgroup" ]; then remove_cgroup "$(cat "$run/cgroup")"; fi
  rm -rf --one-file-system "$run"
}
