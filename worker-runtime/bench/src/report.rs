//! The table: one row per measurement, medians with spread, judged against its budget.

use crate::AnyError;
use std::path::Path;

/// Median and spread of several runs.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    /// Middle value.
    pub value: f64,
    /// Smallest and largest.
    pub spread: (f64, f64),
    /// How many values.
    pub runs: usize,
}

/// The median of at least one value.
pub fn median(mut values: Vec<f64>) -> Median {
    values.sort_by(f64::total_cmp);
    Median {
        runs: values.len(),
        value: values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
        spread: (
            values.first().copied().unwrap_or(f64::NAN),
            values.last().copied().unwrap_or(f64::NAN),
        ),
    }
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.value >= 100.0 { 0 } else { 2 };
        write!(
            f,
            "{:.digits$} ({:.digits$}–{:.digits$} of {})",
            self.value, self.spread.0, self.spread.1, self.runs
        )
    }
}

/// The verdict over what has not met its budget.
const MISSED: &str = "**no**";

/// The rows so far.
pub struct Report {
    head: String,
    rows: Vec<[String; 4]>,
}

impl Report {
    /// An empty table for this machine, with what is to be known of how it was made.
    pub fn new(how: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory: u64 = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0);
        Self {
            head: format!("Machine: {cores} cores, {} GiB. {how}", memory >> 20),
            rows: Vec::new(),
        }
    }

    /// Adds a row and shows it at once.
    pub fn row(&mut self, what: &str, measured: String, budget: &str, met: Option<bool>) {
        let verdict = match met {
            Some(true) => "yes",
            Some(false) => MISSED,
            None => "",
        };
        eprintln!("{what}: {measured}   [{budget}] {verdict}");
        self.rows
            .push([what.into(), measured, budget.into(), verdict.into()]);
    }

    /// An error that names what has not met its budget.
    pub fn all_met(&self) -> Result<(), AnyError> {
        let missed = self.rows.iter().filter(|row| row[3] == MISSED);
        let missed: Vec<String> = missed
            .map(|[what, measured, budget, _]| format!("{what}: {measured}, budget {budget}"))
            .collect();
        match missed.is_empty() {
            true => Ok(()),
            false => Err(format!("not met: {}", missed.join("; ")).into()),
        }
    }

    /// The table as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = format!(
            "{}\n\n| What | Measured | Budget | Met |\n|---|---|---|---|\n",
            self.head
        );
        for [what, measured, budget, met] in &self.rows {
            out.push_str(&format!("| {what} | {measured} | {budget} | {met} |\n"));
        }
        out
    }
}

/// Replaces what stands between the two marker lines of a file: `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
pub fn write_between_markers(path: &Path, name: &str, table: &str) -> Result<(), AnyError> {
    let (begin, end) = (
        format!("<!-- {name}: begin -->"),
        format!("<!-- {name}: end -->"),
    );
    let text = std::fs::read_to_string(path)?;
    let (Some(from), Some(to)) = (text.find(&begin), text.find(&end)) else {
        return Err(format!("{} has no lines {begin} and {end}", path.display()).into());
    };
    let new = format!("{}{begin}\n{table}{}", &text[..from], &text[to..]);
    std::fs::write(path, new)?;
    Ok(())
}
