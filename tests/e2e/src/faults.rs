//! What breaks: containers, and parts of the cluster itself. Only on a cluster of our own.

use crate::{Pod, kubectl, root, wait_for};
use std::process::Command;

/// Whether the cluster is one that `make cluster-up` started, of which a test may kill parts.
pub fn own_cluster() -> bool {
    std::env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty())
}

/// Runs a command inside the sandbox of our own cluster.
fn enter(arguments: &[&str]) {
    let program = root().join("tests/e2e/cluster/enter");
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("tests/e2e/cluster/enter: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", arguments.join(" "));
}

/// Kills the processes of the containers of these pods; their kubelet starts them again.
///
/// # Panics
/// If one of them is not running.
pub fn kill_containers(pods: &[Pod]) {
    for pod in pods {
        let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal"];
        enter(&[kill.as_slice(), &["SIGKILL", &pod.container]].concat());
    }
}

/// Kills a part of the cluster itself (`kube-apiserver`), which starts again at once.
///
/// # Panics
/// If it does not run.
pub fn kill_part(name: &str) {
    enter(&[
        "sh",
        "-c",
        &format!("kill -9 $(cat /run/cluster/pids/{name})"),
    ]);
}

/// Waits until the API server answers.
///
/// # Panics
/// If it does not within a minute.
pub fn answers() {
    wait_for("the API server", 60, || {
        let output = kubectl(&["get", "--raw", "/readyz"], "");
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or_else(said)
    });
}
