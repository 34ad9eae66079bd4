//! `vumi new`: writes a worker type into a source checkout, from templates, wired in and ready to run.

mod edits;
mod names;

use crate::error::CliError;
use crate::output;
use names::Names;
use std::path::{Path, PathBuf};

/// Arguments of `vumi new`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi new transport acmeSms --family http      one message per HTTP request, replies in the response
  vumi new transport acmeChat --family chat     a line protocol over TCP
  vumi new application quiz                     answers every message

It writes the settings (api/src), the worker (worker-runtime), its line in both tables, two example manifests and a
campaign test. What it writes compiles and passes the conformance suite as it is; docs/add-a-transport.md says how to go on.")]
pub struct Arguments {
    /// What to make
    #[arg(value_enum)]
    pub what: What,
    /// Its name, the key in manifests: camelCase
    pub name: String,
    /// The family of a transport
    #[arg(long, value_enum)]
    pub family: Option<Family>,
    /// The source checkout
    #[arg(long, value_name = "ROOT", default_value = ".")]
    pub dir: PathBuf,
}

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Speaks to a network or a provider
    Transport,
    /// Holds the conversation
    Application,
}

/// Families of transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    /// Requests and replies over HTTP
    Http,
    /// Lasting connections with many users
    Chat,
}

/// Everything that differs between the things that can be made.
struct Recipe {
    /// Folder in `api/src` and `examples`.
    plural: &'static str,
    /// Name of the table in `api/src/kinds.rs`.
    table: &'static str,
    /// Source folder of the family crate.
    family: &'static str,
    /// Package of the family crate.
    package: &'static str,
    /// Doc comment of the type in the union.
    about: &'static str,
    config: &'static str,
    worker: &'static str,
    /// Files beside the worker's module: folder from there, ending and text.
    beside: &'static [(&'static str, &'static str, &'static str)],
    minimal: &'static str,
    full: String,
    test: &'static str,
}

/// What only transports have among the settings of retries.
const EXTERNAL: &str = "    external: false                     # true: a Vumi failure worker has the later attempts made\n";

fn recipe(what: What, family: Option<Family>) -> Result<Recipe, CliError> {
    let full = |own: &str, ordering: &str, more: &str| {
        let retry = match what {
            What::Application => "",
            What::Transport => EXTERNAL,
        };
        let settings = include_str!("new/settings.yaml")
            .replace("{{ordering}}", ordering)
            .replace("{{retry}}", retry);
        format!("{own}{settings}{more}")
    };
    Ok(match (what, family) {
        (What::Application, None) => Recipe {
            plural: "applications",
            table: "APPLICATION_TYPES",
            family: "worker-runtime/applications/src",
            package: "vumi-applications",
            about: "Answers every message with its own content.",
            config: include_str!("new/api_application.rs.txt"),
            worker: include_str!("new/application.rs.txt"),
            beside: &[],
            minimal: include_str!("new/minimal_application.yaml"),
            full: full(
                include_str!("new/full_application.yaml"),
                "mode: perUser, standby: true",
                "",
            ),
            test: include_str!("new/test_application.yaml"),
        },
        (What::Transport, Some(Family::Http)) => Recipe {
            plural: "transports",
            table: "TRANSPORT_TYPES",
            family: "worker-runtime/transports/http/src",
            package: "vumi-transports-http",
            about: "One message per HTTP request; the reply is the response body.",
            config: include_str!("new/api_http.rs.txt"),
            worker: include_str!("new/http.rs.txt"),
            beside: &[
                ("", "yaml", include_str!("new/http_description.yaml")),
                ("../cases/", "yaml", include_str!("new/case_http.yaml")),
            ],
            minimal: include_str!("new/minimal_http.yaml"),
            full: full(
                include_str!("new/full_http.yaml"),
                "mode: none",
                include_str!("new/secret_http.yaml"),
            ),
            test: include_str!("new/test_http.yaml"),
        },
        (What::Transport, Some(Family::Chat)) => Recipe {
            plural: "transports",
            table: "TRANSPORT_TYPES",
            family: "worker-runtime/transports/chat/src",
            package: "vumi-transports-chat",
            about: "A server for line-based conversations: each connection is one user's session.",
            config: include_str!("new/api_chat.rs.txt"),
            worker: include_str!("new/chat.rs.txt"),
            beside: &[],
            minimal: include_str!("new/minimal_chat.yaml"),
            full: full(
                include_str!("new/full_chat.yaml"),
                "mode: perUser, standby: true",
                "",
            ),
            test: include_str!("new/test_chat.yaml"),
        },
        (What::Transport, None) => {
            return Err(CliError::validation(
                "a transport belongs to a family; add --family http (requests and replies) or --family chat (lasting connections)",
            ));
        }
        (What::Application, Some(_)) => {
            return Err(CliError::validation(
                "applications are one family; leave --family out",
            ));
        }
    })
}

/// Writes the files.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let recipe = recipe(arguments.what, arguments.family)?;
    let names = Names::check(&arguments.name)?;
    let root = &arguments.dir;
    let changes = changes(root, &recipe, &names)?;
    for (path, text) in &changes {
        let parent = path.parent().unwrap_or(root);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(path, text))
            .map_err(|error| {
                CliError::environment(format!("cannot write {}: {error}", path.display()))
            })?;
        output::print(&format!("wrote {}\n", path.display()))?;
    }
    let place = format!("{}/{}", recipe.plural, names.camel);
    output::print(&format!(
        "\nNext:\n  make crds docs                     the schema and the reference page\n  cargo test -p {}\n  cargo run -q -p vumi -- lint examples/{place}\n  cargo run -q -p vumi -- test examples/{place}\n",
        recipe.package,
    ))
}

/// All files with their new text. Nothing is written before all of it is known to fit.
fn changes(
    root: &Path,
    recipe: &Recipe,
    names: &Names,
) -> Result<Vec<(PathBuf, String)>, CliError> {
    let read = |name: &str| {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            CliError::environment(format!(
                "{}; run this at the root of the source tree, or give --dir",
                CliError::unreadable(path.display(), &error)
            ))
        })?;
        Ok::<_, CliError>((path, text))
    };
    let edited = |name: &str, edit: &dyn Fn(&str) -> Option<String>| {
        let (path, text) = read(name)?;
        let text = edit(&text).ok_or_else(|| {
            CliError::runtime(format!(
                "{} has another shape than expected; add {} there by hand, as docs/add-a-transport.md says",
                path.display(),
                names.camel
            ))
        })?;
        Ok::<_, CliError>((path, text))
    };
    let module = names.module.as_str();
    let kinds = read("api/src/kinds.rs")?.1;
    let taken = vumi_api::WorkerType::find(&names.camel).is_some()
        || kinds.contains(&format!("= \"{}\"", names.camel))
        || kinds.contains(&format!(" {module}: "));
    if taken {
        return Err(CliError::validation(format!(
            "there is a worker type {} already; choose another name",
            names.camel
        )));
    }
    let config = format!("api/src/{}/{module}.rs", recipe.plural);
    let worker = format!("{}/{module}.rs", recipe.family);
    for file in [&config, &worker] {
        if root.join(file).exists() || root.join(file).with_extension("").is_dir() {
            return Err(CliError::validation(format!(
                "{file} exists already; choose another name"
            )));
        }
    }
    let examples = format!("examples/{}/{}", recipe.plural, names.camel);
    let beside = recipe.beside.iter().map(|(folder, ending, text)| {
        let path = format!("{}/{folder}{module}.{ending}", recipe.family);
        (root.join(path), names.fill(text))
    });
    let mut all = vec![
        (root.join(config), names.fill(recipe.config)),
        edited(&format!("api/src/{}/mod.rs", recipe.plural), &|text| {
            let text = edits::add_module(text, module)?;
            edits::add_reexport(&text, module, &names.pascal)
        })?,
        edited("api/src/kinds.rs", &|text| {
            let path = format!("crate::{}::{}", recipe.plural, names.pascal);
            let row = format!(
                "        /// {}\n        {module}: {path} = \"{}\",\n",
                recipe.about, names.camel
            );
            edits::add_type(text, recipe.table, &row)
        })?,
        (root.join(worker), names.fill(recipe.worker)),
        edited(&format!("{}/lib.rs", recipe.family), &|text| {
            let text = edits::add_module(text, module)?;
            edits::add_registration(&text, module)
        })?,
        (
            root.join(&examples).join("minimal.yaml"),
            names.fill(recipe.minimal),
        ),
        (
            root.join(&examples).join("full.yaml"),
            names.fill(&recipe.full),
        ),
        (
            root.join(&examples)
                .join("tests")
                .join(format!("{}.yaml", names.camel)),
            names.fill(recipe.test),
        ),
    ];
    all.extend(beside);
    Ok(all)
}
