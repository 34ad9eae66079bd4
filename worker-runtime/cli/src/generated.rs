//! Pages that are made from the source tree and committed: written, or compared with what is there. How a page begins says
//! who makes it, so that one that is not made any more is known and removed.

use crate::error::CliError;
use crate::output;
use std::path::{Path, PathBuf};

/// A folder and the pages that are to be in it.
pub struct Folder<'a> {
    /// Where it is.
    pub place: &'a Path,
    /// Paths below it, and texts.
    pub pages: &'a [(String, String)],
    /// How pages of this maker begin.
    pub mark: &'a str,
}

/// Writes the pages, and removes those that are not made any more.
///
/// # Errors
/// A file cannot be written or removed.
pub fn write(folders: &[Folder<'_>]) -> Result<(), CliError> {
    for folder in folders {
        let left_over = left_over(folder.place, folder.pages, folder.mark);
        write_files(folder.place, folder.pages)?;
        for path in left_over {
            std::fs::remove_file(&path).map_err(|error| {
                CliError::environment(format!("cannot remove {}: {error}", path.display()))
            })?;
            output::print(&format!("removed {}\n", path.display()))?;
        }
    }
    Ok(())
}

/// Says whether the pages are up to date.
///
/// # Errors
/// They are not, and which.
pub fn check(folders: &[Folder<'_>]) -> Result<(), CliError> {
    let mut stale: Vec<String> = Vec::new();
    for folder in folders {
        let left_over = left_over(folder.place, folder.pages, folder.mark);
        stale.extend(left_over.iter().map(|p| p.display().to_string()));
        for (name, text) in folder.pages {
            let path = folder.place.join(name);
            if std::fs::read_to_string(&path).map_or(true, |held| held != *text) {
                stale.push(path.display().to_string());
            }
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => Err(CliError::validation(format!(
            "{} not up to date: {}; run `make docs`",
            if stale.len() == 1 {
                "this page is"
            } else {
                "these pages are"
            },
            stale.join(", ")
        ))),
    }
}

/// A manual page for each command, subcommands included, as name and text; `mark` is its first line.
///
/// # Errors
/// One cannot be made, which is a bug.
pub fn manual(mut command: clap::Command, mark: &str) -> Result<Vec<(String, String)>, CliError> {
    // Long options of a page are shown with those of all its parents only after this.
    command.build();
    let mut pages = Vec::new();
    let mut waiting = vec![(command.get_name().to_owned(), command)];
    while let Some((name, command)) = waiting.pop() {
        let shown = |c: &&clap::Command| c.get_name() != "help" && !c.is_hide_set();
        for below in command.get_subcommands().filter(shown) {
            waiting.push((format!("{name}-{}", below.get_name()), below.clone()));
        }
        let mut page = mark.as_bytes().to_vec();
        page.push(b'\n');
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| CliError::runtime(format!("the manual page of {name}: {error}")))?;
        let page = String::from_utf8_lossy(&page).into_owned();
        pages.push((format!("{name}.1"), page));
    }
    pages.sort();
    Ok(pages)
}

/// Writes `files`, given as path below `folder` and text; folders are made as needed, unchanged files left untouched.
///
/// # Errors
/// One cannot be written.
pub fn write_files(folder: &Path, files: &[(String, String)]) -> Result<(), CliError> {
    for (name, text) in files {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|held| held == *text) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| {
                CliError::environment(format!(
                    "cannot write {}: {error}; choose another --out directory or check its permissions",
                    path.display()
                ))
            })?;
        println_path(&path)?;
    }
    Ok(())
}

fn println_path(path: &Path) -> Result<(), CliError> {
    output::print(&format!("wrote {}\n", path.display()))
}

/// Generated pages in `folder` that are not generated any more.
fn left_over(folder: &Path, pages: &[(String, String)], mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder_now) = folders.pop() {
        for entry in std::fs::read_dir(&folder_now)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if pages.iter().all(|(name, _)| folder.join(name) != path)
                && std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(mark))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
