//! Progress bars: one for the run, one more line for each file that takes long.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::pipeline::progress::Progress;

/// Files from this size on get a line of their own, in bytes.
const LINE_BYTES: u64 = 64 << 20;

/// Bars on standard error; hidden where that is no terminal.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: Mutex<HashMap<usize, ProgressBar>>,
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a fault in one shows as indicatif's default bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Bars {
    /// Bars that show nothing until [`Progress::begin`]; never, if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self {
            all: MultiProgress::with_draw_target(target),
            total: ProgressBar::hidden(),
            files: Mutex::default(),
        }
    }

    /// Removes the bars, so that what is printed next stands alone.
    pub fn clear(&self) {
        self.total.finish_and_clear();
        // Nothing is lost where a terminal refuses: the bars are only decoration.
        let _ = self.all.clear();
    }
}

impl Progress for Bars {
    fn begin(&self, total_bytes: u64) {
        let known = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        self.total.set_style(style(if total_bytes == 0 {
            "{spinner} {bytes} {bytes_per_sec}"
        } else {
            known
        }));
        self.total.set_length(total_bytes);
        self.all.add(self.total.clone());
        self.total.enable_steady_tick(Duration::from_millis(200));
    }

    fn file_started(&self, file_idx: usize, path: &str, bytes: u64) {
        if bytes < LINE_BYTES {
            return;
        }
        let line = self.all.add(ProgressBar::new(bytes));
        line.set_style(style("  {bar:20} {bytes}/{total_bytes} {msg}"));
        line.set_message(path.escape_debug().to_string());
        if let Ok(mut files) = self.files.lock() {
            files.insert(file_idx, line);
        }
    }

    fn advanced(&self, file_idx: usize, bytes: u64) {
        self.total.inc(bytes);
        if let Ok(files) = self.files.lock()
            && let Some(line) = files.get(&file_idx)
        {
            line.inc(bytes);
        }
    }

    fn file_finished(&self, file_idx: usize) {
        if let Ok(mut files) = self.files.lock()
            && let Some(line) = files.remove(&file_idx)
        {
            line.finish_and_clear();
        }
    }
}
