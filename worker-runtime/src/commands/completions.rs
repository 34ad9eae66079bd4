//! `vumi completions`: the script that makes a shell complete commands and options.

use crate::error::CliError;
use crate::output;

/// Arguments of `vumi completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi completions bash > ~/.local/share/bash-completion/completions/vumi
  vumi completions zsh > ~/.zfunc/_vumi
  vumi completions fish > ~/.config/fish/completions/vumi.fish")]
pub struct Arguments {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Prints the script for `command`, the whole command line.
pub fn run(arguments: &Arguments, mut command: clap::Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "vumi", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
