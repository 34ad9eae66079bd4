//! `docs/tutorial.md`, done as it says: its files are written, its commands run in their order, what they say is compared with
//! the page. What the page writes means:
//!
//! * A fence `yaml`, `python` or `ini` whose first line is `# PATH` is a file.
//! * A fence `console` is a terminal: `$ ` begins a command, `> ` what is typed into it, `^C` ends it; all else is what is shown.
//!   `…` stands for anything in a line, alone for any lines. Spaces count as one.
//! * `<!-- terminal: NAME -->` before it: the command goes on when the fence ends, and later fences of that name go on with it.
//! * Commands end with exit code 0; `<!-- exit code: N -->` before it says another one of its only command.
//! * `<!-- not run: WHY -->` before it leaves it out.

use crate::harness::{PATIENCE, vhost};
use regex::Regex;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PAGE: &str = "../docs/tutorial.md";
/// Ports and the broker as the page writes them.
const PORTS: [&str; 3] = ["9010", "9011", "9012"];
const BROKER: &str = "amqp://guest:guest@localhost/";
const CHECKOUT: &str = "~/vumi";
/// Between two looks at what should come.
const LOOK: Duration = Duration::from_millis(20);

/// A fence of the page.
#[derive(Debug)]
enum Fence {
    File(PathBuf, String),
    Console {
        terminal: Option<String>,
        /// With which its commands end.
        code: i32,
        lines: Vec<String>,
    },
}

/// The fences of a page, without those that are not run.
fn fences(page: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut remark = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(said) = line.strip_prefix("<!-- ") {
            remark = Some(said.trim_end_matches(" -->").to_owned());
            continue;
        }
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let inside = lines.by_ref().take_while(|line| *line != "```");
        let inside: Vec<String> = inside.map(str::to_owned).collect();
        let remark = remark.take();
        let (what, name) = match remark.as_deref() {
            None => ("", None),
            Some(remark) => {
                let (what, name) = remark.split_once(": ").expect("a remark says what it is");
                (what, Some(name.to_owned()))
            }
        };
        match (language, what) {
            ("console", "" | "terminal") => fences.push(Fence::Console {
                terminal: name,
                code: 0,
                lines: inside,
            }),
            ("console", "exit code") => {
                let commands = inside.iter().filter(|line| line.starts_with("$ "));
                assert_eq!(commands.count(), 1, "whose exit code? {inside:?}");
                fences.push(Fence::Console {
                    terminal: None,
                    code: name.expect("a number").parse().expect("a number"),
                    lines: inside,
                });
            }
            ("console", "not run") => {}
            ("yaml" | "python" | "ini", "") => {
                let path = inside[0].strip_prefix("# ").expect("a file is named");
                fences.push(Fence::File(path.into(), inside.join("\n") + "\n"));
            }
            other => panic!("what is a fence {other:?}?"),
        }
    }
    fences
}

/// Lines with each run of spaces as one, and none at the ends.
fn plain(text: &str) -> String {
    let lines = text.lines();
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

/// What these lines of the page stand for, from the beginning of a text.
fn pattern(lines: &[String]) -> String {
    let mut pattern = String::from("^");
    for line in lines {
        let line = plain(line);
        match line.trim_end() {
            "…" => pattern += "(?:[^\n]*\n)*?",
            line => {
                let parts = line.split('…').map(|part| regex::escape(part.trim()));
                pattern += &parts.collect::<Vec<_>>().join("[^\n]*?");
                pattern += "\n";
            }
        }
    }
    pattern
}

/// A program that runs, and what it has said.
struct Running {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    /// Of its plain output, so much has been compared.
    heard: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let kill = ["-c", "kill -s \"$0\" -- \"$1\"", signal, &group];
        let _ = Command::new("bash")
            .args(kill)
            .stderr(Stdio::null())
            .status();
    }

    fn said(&self) -> String {
        plain(&String::from_utf8_lossy(&self.said.lock().unwrap()))
    }

    /// Waits until it says these lines next.
    fn says(&mut self, lines: &[String]) {
        let expected = Regex::new(&pattern(lines)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            let rest = &said[self.heard.min(said.len())..];
            if let Some(found) = expected.find(rest) {
                self.heard += found.end();
                return;
            }
            assert!(
                Instant::now() < deadline,
                "expected:\n{}\n\ngot:\n{rest}",
                lines.join("\n")
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until it ends, as long as it goes on saying something: a check of thirty cases may need minutes.
    fn ends(&mut self) -> i32 {
        let (mut said, mut deadline) = (self.said(), Instant::now() + PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            let now = self.said();
            if now != said {
                (said, deadline) = (now, Instant::now() + PATIENCE);
            }
            assert!(Instant::now() < deadline, "does not end; said:\n{said}");
            std::thread::sleep(LOOK);
        }
    }
}

/// Where the page is done.
struct Place {
    folder: tempfile::TempDir,
    path: String,
    replaced: BTreeMap<String, String>,
    terminals: BTreeMap<String, Running>,
}

impl Place {
    fn new(broker: &str, python: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for inside in ["bin", "run"] {
            std::fs::create_dir(folder.path().join(inside)).unwrap();
        }
        let bin = folder.path().join("bin");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vumi"), bin.join("vumi")).unwrap();
        if python.is_absolute() {
            std::os::unix::fs::symlink(python, bin.join("python3")).unwrap();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut replaced = BTreeMap::from([
            (BROKER.to_owned(), broker.to_owned()),
            (CHECKOUT.to_owned(), root.display().to_string()),
        ]);
        for port in PORTS {
            // None that holds another one of the page, which would be replaced in it.
            let fits = |free: &String| !PORTS.iter().any(|port| free.contains(port));
            let any = || vumi_testkit::free_port().unwrap().to_string();
            let free = std::iter::repeat_with(any).find(fits);
            replaced.insert(port.to_owned(), free.unwrap());
        }
        let path = std::env::var("PATH").unwrap();
        Self {
            path: format!("{}:{path}", bin.display()),
            folder,
            replaced,
            terminals: BTreeMap::new(),
        }
    }

    fn replace(&self, text: &str) -> String {
        let pairs = self.replaced.iter();
        pairs.fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }

    fn start(&self, command: &str) -> Running {
        // One pipe for both, as on a screen: what is said stays in its order.
        let (output, end) = std::io::pipe().unwrap();
        // Whoever starts the tests may have them ignore Ctrl-C, and Python would go on doing so.
        let fresh = ["env", "--default-signal=INT", "bash", "-c", command];
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(fresh)
            .env("PATH", &self.path)
            .env("XDG_RUNTIME_DIR", self.folder.path().join("run"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("RUST_LOG")
            .env_remove("VUMI_BROKER_URL")
            .env_remove("VUMI_REDIS_URL")
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(end.try_clone().unwrap())
            .stderr(end)
            .process_group(0)
            .spawn()
            .unwrap();
        let said = Arc::<Mutex<Vec<u8>>>::default();
        follow(output, &said);
        Running {
            child,
            said,
            heard: 0,
        }
    }

    /// A command that ends, with this exit code.
    fn run(&self, command: &str, wanted: i32, lines: &[String]) {
        let expected = Regex::new(&format!("{}$", pattern(lines))).unwrap();
        // What another program does may take a moment; whoever sees too little asks again.
        let asks = ["vumi why", "vumi status", "vumi top", "vumi journal"];
        let asks = asks.iter().any(|start| command.starts_with(start));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut running = self.start(command);
            drop(running.child.stdin.take());
            let code = running.ends();
            // The last words may come a moment after the end.
            std::thread::sleep(LOOK);
            let said = running.said();
            if code == wanted && expected.is_match(&said) {
                return;
            }
            let again = (asks || code != wanted) && Instant::now() < deadline;
            let lines = lines.join("\n");
            assert!(
                again,
                "$ {command}\nexpected (exit code {wanted}):\n{lines}\n\ngot (exit code {code}):\n{said}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn console(&mut self, terminal: Option<String>, code: i32, lines: &[String]) {
        let lines: Vec<String> = lines.iter().map(|line| self.replace(line)).collect();
        let mut rest = &lines[..];
        while let Some(first) = rest.first() {
            let acts =
                |line: &String| line.starts_with("$ ") || line.starts_with("> ") || line == "^C";
            let shown = rest[1..]
                .iter()
                .position(acts)
                .map_or(rest.len(), |n| n + 1);
            let says = &rest[1..shown];
            match (&terminal, first.strip_prefix("$ ")) {
                (None, Some(command)) => self.run(command, code, says),
                (None, None) => panic!("no command before {first:?}"),
                (Some(name), Some(command)) => {
                    let mut running = self.start(command);
                    running.says(says);
                    self.terminals.insert(name.clone(), running);
                }
                (Some(name), None) => {
                    let running = self.terminals.get_mut(name).expect("it runs");
                    if first == "^C" {
                        running.signal("INT");
                        running.ends();
                    } else if let Some(typed) = first.strip_prefix("> ") {
                        let input = running.child.stdin.as_mut().unwrap();
                        writeln!(input, "{typed}").unwrap();
                        running.says(says);
                    } else {
                        running.says(&rest[..shown]);
                    }
                }
            }
            rest = &rest[shown..];
        }
    }
}

fn follow(mut output: impl Read + Send + 'static, said: &Arc<Mutex<Vec<u8>>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            said.lock().unwrap().extend(&buffer[..count]);
        }
    });
}

/// As editors do: a new file renamed over the old one.
fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_ends_as_it_says() {
    let Some(broker) = vhost("tutorial").await else {
        return;
    };
    let Some(python) = vumi_testkit::python_with("pika") else {
        return vumi_testkit::skip("no Python with pika (scripts/setup test installs it)");
    };
    for program in ["telnet", "curl", "setpriv"] {
        let found = Command::new("which").arg(program).output().unwrap();
        if !found.status.success() {
            return vumi_testkit::skip(&format!("{program} is not installed"));
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let fences = fences(&std::fs::read_to_string(page).unwrap());
    assert!(fences.len() > 30, "{} fences", fences.len());
    let mut place = Place::new(&broker, &python);
    for fence in fences {
        match fence {
            Fence::File(path, text) => {
                write(&place.folder.path().join(path), &place.replace(&text));
            }
            Fence::Console {
                terminal,
                code,
                lines,
            } => place.console(terminal, code, &lines),
        }
    }
}

#[test]
fn a_page_says_with_what_a_command_ends() {
    let page = "```console\n$ true\n```\n<!-- exit code: 2 -->\n```console\n$ false\nno\n```\n";
    let codes: Vec<i32> = fences(page)
        .into_iter()
        .map(|fence| match fence {
            Fence::Console { code, .. } => code,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [0, 2]);
}

#[test]
fn a_page_that_says_something_else_is_found() {
    let matches = |page: &[&str], said: &str| {
        let page: Vec<String> = page.iter().map(|line| (*line).to_owned()).collect();
        let whole = format!("{}$", pattern(&page));
        Regex::new(&whole).unwrap().is_match(&plain(said))
    };
    assert!(matches(&["a …  c", "…", "z"], "a b   c\n1\n2\nz\n"));
    assert!(matches(&["…", "z"], "z\n"));
    assert!(!matches(&["a"], "a\nb\n"));
    assert!(!matches(&["a … c"], "a b d\n"));
    assert!(!matches(&[], "a\n") && matches(&[], ""));
}
