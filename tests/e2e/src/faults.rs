//! What breaks: containers, and parts of the cluster itself. Only on a cluster of our own.

use crate::process::run;
use crate::{Pod, kubectl, wait_for};

/// Whether the cluster is one that `make cluster-up` started, of which a test may kill parts.
pub fn own_cluster() -> bool {
    std::env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty())
}

/// What a command inside the sandbox of our own cluster printed, or why it failed.
fn enter(arguments: &[&str]) -> Result<String, String> {
    let output = run("enter", arguments, "");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(format!("{}: {}", arguments.join(" "), said(&output.stderr))),
    }
}

/// A key of a Secret, as a worker's pod of our own cluster has it in a file now.
///
/// # Errors
/// There is no such file.
pub fn secret_file(pod: &Pod, secret: &str, key: &str) -> Result<String, String> {
    let (folder, volume) = (
        "/run/cluster/kubelet/pods",
        "kubernetes.io~projected/secrets",
    );
    let path = format!("{folder}/{}/volumes/{volume}/{secret}/{key}", pod.uid);
    enter(&["cat", &path])
}

/// Kills the processes of the containers of these pods; their kubelet starts them again.
///
/// # Panics
/// If one of them is not running.
pub fn kill_containers(pods: &[Pod]) {
    pods.iter().for_each(|pod| signal(pod, "SIGKILL"));
}

/// Stops the process of a pod's container where it is, as a machine does that sleeps: it keeps its connections and says nothing,
/// until [`thaw`] lets it go on.
///
/// # Panics
/// If it is not running.
pub fn freeze(pod: &Pod) {
    signal(pod, "SIGSTOP");
}

/// Lets a process go on that [`freeze`] has stopped.
///
/// # Panics
/// If it is not there any more.
pub fn thaw(pod: &Pod) {
    signal(pod, "SIGCONT");
}

fn signal(pod: &Pod, signal: &str) {
    let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal"];
    let sent = enter(&[kill.as_slice(), &[signal, &pod.container]].concat());
    sent.unwrap_or_else(|why| panic!("{} gets no {signal}: {why}", pod.name));
}

/// Kills a part of the cluster itself (`kube-apiserver`), which starts again at once.
///
/// # Panics
/// If it does not run.
pub fn kill_part(name: &str) {
    let kill = format!("kill -9 $(cat /run/cluster/pids/{name})");
    enter(&["sh", "-c", &kill]).unwrap_or_else(|why| panic!("{name} is not killed: {why}"));
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
