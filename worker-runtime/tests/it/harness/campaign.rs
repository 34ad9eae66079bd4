//! A folder of manifests of its own: copied from `examples/` with free ports, or written by the test.

use super::process::{Process, run, said};
use super::{PATIENCE, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A temporary folder with manifests in `campaign/` and everything else beside them.
pub struct Campaign {
    folder: TempDir,
    ports: BTreeMap<u16, u16>,
}

impl Campaign {
    /// A copy of `examples/NAME`; each of `ports` is replaced by a free one.
    pub fn example(name: &str, ports: &[u16]) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let mut campaign = Self::empty();
        for port in ports {
            campaign
                .ports
                .insert(*port, vumi_testkit::free_port().unwrap());
        }
        for entry in std::fs::read_dir(source.join(name)).unwrap() {
            let entry = entry.unwrap();
            // Campaign tests are no manifests.
            if entry.path().is_dir() {
                continue;
            }
            let mut text = std::fs::read_to_string(entry.path()).unwrap();
            for (written, free) in &campaign.ports {
                text = text.replace(&format!("port: {written}"), &format!("port: {free}"));
            }
            std::fs::write(campaign.manifests().join(entry.file_name()), text).unwrap();
        }
        campaign
    }

    /// No manifests yet.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("vumi-e2e-")
            .tempdir()
            .unwrap();
        std::fs::create_dir(folder.path().join("campaign")).unwrap();
        Self {
            folder,
            ports: BTreeMap::new(),
        }
    }

    /// The free port that replaced `written`.
    pub fn port(&self, written: u16) -> u16 {
        self.ports[&written]
    }

    /// The whole folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the manifests are.
    pub fn manifests(&self) -> PathBuf {
        self.path().join("campaign")
    }

    /// Writes a manifest as editors do: a new file renamed over the old one.
    pub fn write(&self, file: &str, text: &str) {
        let draft = self.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.manifests().join(file)).unwrap();
    }

    /// Text of a manifest.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.manifests().join(file)).unwrap()
    }

    /// Replaces `old` by `new` in a manifest.
    pub fn edit(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} has no {old:?}");
        self.write(file, &text.replace(old, new));
    }

    /// Removes a manifest.
    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// `vumi run -f campaign` with more arguments.
    pub fn run(&self, arguments: &[&str]) -> Process {
        let manifests = self.manifests();
        let mut all = vec!["run", "-f", manifests.to_str().unwrap()];
        all.extend(arguments);
        Process::start(self.path(), "run", &all)
    }

    /// `vumi worker` on a copy of a manifest in a folder of its own, as a pod has it.
    pub fn worker(&self, name: &str, file: &str, broker: &str) -> Process {
        self.worker_with(name, &self.read(file), broker)
    }

    /// `vumi worker` on a manifest in a folder of its own.
    pub fn worker_with(&self, name: &str, manifest: &str, broker: &str) -> Process {
        self.place(name, manifest);
        self.worker_again(name, broker)
    }

    /// Puts a manifest into a folder of its own.
    pub fn place(&self, name: &str, manifest: &str) {
        let folder = self.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("worker.yaml"), manifest).unwrap();
    }

    /// `vumi worker` on a folder that is there.
    pub fn worker_again(&self, name: &str, broker: &str) -> Process {
        self.alone(["worker", "--manifests"], name, broker, &[])
    }

    /// `vumi worker`, or `vumi run` (whose manifest may be edited), on a folder that is there.
    pub fn alone(
        &self,
        [command, option]: [&str; 2],
        name: &str,
        broker: &str,
        more: &[&str],
    ) -> Process {
        let folder = self.path().join(name);
        let admin = format!("127.0.0.1:{}", vumi_testkit::free_port().unwrap());
        let folder = folder.to_str().unwrap();
        let mut arguments = vec![
            command, option, folder, "--name", name, "--broker", broker, "--admin", &admin,
        ];
        arguments.extend(more);
        Process::start(self.path(), name, &arguments)
    }

    /// Sets a field of `spec` in the manifest of a worker's own folder.
    pub fn edit_worker(&self, name: &str, field: &str, value: &str) {
        let file = self.path().join(name).join("worker.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let start = format!("  {field}:");
        let mut lines: Vec<&str> = text.lines().filter(|l| !l.starts_with(&start)).collect();
        let line = format!("{start} {value}");
        lines.push(&line);
        let draft = self.path().join(format!("{name}.draft"));
        std::fs::write(&draft, lines.join("\n") + "\n").unwrap();
        std::fs::rename(draft, file).unwrap();
    }

    /// What `vumi status` says about the only process of this campaign.
    pub fn status(&self) -> Result<Status, String> {
        self.status_of(&[])
    }

    /// What `vumi status` says about the process that `which` names.
    pub fn status_of(&self, which: &[&str]) -> Result<Status, String> {
        let arguments = [&["status", "--format", "json"], which].concat();
        let output = run(self.path(), &arguments);
        // 1 says that some worker is not ready.
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(said(&output));
        }
        serde_json::from_slice(&output.stdout)
            .map(Status)
            .map_err(|error| format!("{error}: {}", said(&output)))
    }

    /// Waits until a worker of the process that `which` names is ready.
    pub async fn until_ready(&self, which: &[&str], key: &str) {
        wait_for(&format!("{key} is ready"), PATIENCE, || async {
            let status = self.status_of(which)?;
            match status.worker(key)?["ready"] == true {
                true => Ok(()),
                false => Err(status.0.to_string()),
            }
        })
        .await;
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("logs and manifests are kept in {}", self.path().display());
        }
    }
}

/// A decoded `vumi status`.
pub struct Status(pub Value);

impl Status {
    /// One worker, by kind and name.
    pub fn worker(&self, key: &str) -> Result<&Value, String> {
        let workers = self.0["workers"].as_array();
        workers
            .and_then(|all| all.iter().find(|worker| worker["worker"] == key))
            .ok_or_else(|| format!("no {key} in {}", self.0))
    }
}
